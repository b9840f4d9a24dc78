#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Discard and zeroing requests, and all modes of fallocate(2), have the recorded result and zero exactly the given range, if any.
#
# Includes offsets and lengths that are not multiples of a sector. Write-zeroes is a separate operation of up to 16 MiB, and lets
# fallocate punch holes into the disk.
# compare
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

tmp=/tmp/block-zeroing

cleanup() {
	echo 0 >"/sys/block/$plain/queue/iostats"
	rm -f $tmp.*
}

# The number of fallocate(2).
case $(uname -m) in
x86_64) fallocate=285 ;;
*) fallocate=47 ;;
esac

# test_effect NAME COMMAND…: records the result, and the sectors of the first 256K that changed or became zero.
test_effect() {
	effect_name=$1
	shift
	pmem-io fill --direct --length 256K "/dev/$disk"
	effect_result=$("$@" 2>&1) && effect_result=ok
	effect_result=${effect_result##*: }
	cmp -l -n 262144 "/dev/$disk" $tmp.pattern >$tmp.differ || :
	if [ -s $tmp.differ ]; then
		# Bytes that were zero before cannot be distinguished from newly zeroed ones.
		effect_data=$(awk 'NR == 1 { first = $1 } $2 != "0" { other = 1 } { last = $1 }
			END { printf "%s from %d to %d", other ? "changed" : "zero", int((first - 1) / 512), int((last + 511) / 512) }' $tmp.differ)
	else
		effect_data=unchanged
	fi
	add_row "$name: $effect_name" "$effect_result, $effect_data"
}

# make_ioctl REQUEST: fails if the kernel refuses the request.
make_ioctl() {
	ioctl_output=$(pmem-io ioctl "/dev/$disk" "$1")
	echo "$ioctl_output"
	[ "${ioctl_output##*: }" = ok ]
}

# test_disk NAME DISK
test_disk() {
	name=$1 disk=$2
	end=$(blockdev --getsize64 "/dev/$disk")
	sector=$(cat "/sys/block/$disk/queue/logical_block_size")
	pmem-io fill --direct --length 256K "/dev/$disk"
	dd if="/dev/$disk" of=$tmp.pattern bs=256K count=1 iflag=direct status=none
	test_effect "discard" blkdiscard -f -o 0 -l 65536 "/dev/$disk"
	test_effect "secure discard" blkdiscard -f -s -o 0 -l 65536 "/dev/$disk"
	test_effect "zeroing" blkdiscard -f -z -o 4096 -l 65536 "/dev/$disk"
	test_effect "zeroing of a sector" blkdiscard -f -z -o "$sector" -l "$sector" "/dev/$disk"
	test_effect "zeroing of less than a sector" make_ioctl "BLKZEROOUT=0,100"
	test_effect "zeroing up to the end" make_ioctl "BLKZEROOUT=$((end - 4096)),4096"
	test_effect "zeroing across the end" make_ioctl "BLKZEROOUT=$((end - 4096)),8192"
	test_effect "zeroing behind the end" make_ioctl "BLKZEROOUT=$end,4096"
	test_effect "discard behind the end" make_ioctl "BLKDISCARD=$end,4096"
	test_effect "discard of less than a sector" make_ioctl "BLKDISCARD=0,100"
	test_effect "fallocate" fallocate -o 0 -l 8192 "/dev/$disk"
	test_effect "fallocate, keep size" fallocate -n -o 0 -l 8192 "/dev/$disk"
	test_effect "fallocate, punch" fallocate -p -o 8192 -l 8192 "/dev/$disk"
	test_effect "fallocate, zero" fallocate -z -o 8192 -l 8192 "/dev/$disk"
	test_effect "fallocate, zero, keep size" fallocate -z -n -o 8192 -l 8192 "/dev/$disk"
	test_effect "fallocate, zero, out of the grid" fallocate -z -o 100 -l 8192 "/dev/$disk"
	test_effect "fallocate, zero, behind the end" fallocate -z -o "$end" -l 8192 "/dev/$disk"
	test_effect "fallocate, zero, keep size, across the end" fallocate -z -n -o $((end - 4096)) -l 8192 "/dev/$disk"
	test_effect "fallocate, collapse" fallocate -c -o 4096 -l 4096 "/dev/$disk"
	test_effect "fallocate, insert" fallocate -i -o 4096 -l 4096 "/dev/$disk"
	# FALLOC_FL_WRITE_ZEROES, FALLOC_FL_UNSHARE_RANGE, and an undefined mode.
	for mode in 128 64 1024; do
		# shellcheck disable=SC2016 # for perl
		test_effect "fallocate, mode $mode" perl -e 'open(my $f, "+<", $ARGV[0]) or die "$!\n";
			(syscall int $ARGV[1], fileno($f), int $ARGV[2], 4096, 4096) >= 0 or die "$!\n"' "/dev/$disk" $fallocate $mode
	done
	test_effect "truncate" truncate -s 8192 "/dev/$disk"
	add_row "$name: the size" "$(blockdev --getsize64 "/dev/$disk")"
	add_row "$name: limits" "$(cat "/sys/block/$disk/queue/discard_max_bytes" "/sys/block/$disk/queue/write_zeroes_max_bytes" \
		"/sys/block/$disk/queue/discard_granularity" "/sys/block/$disk/queue/write_zeroes_unmap_max_bytes" | paste -sd ' ')"
}

# zero_range OFFSET BYTES: zeroes the range of the disk and of the image.
zero_range() {
	check "zeroing $2 bytes from $1" blkdiscard -f -z -o "$1" -l "$2" "/dev/$plain"
	fallocate -p -o "$1" -l "$2" $tmp.image
}

# test_ranges: 8 subtests.
test_ranges() {
	zero_range 4096 4096
	zero_range 10240 512
	zero_range 65024 8192
	zero_range 1048576 2097152
	check "zeroes there, and nowhere else" cmp -n 4194304 $tmp.image "/dev/$plain"
	is "discard is refused" "$(blkdiscard -f -o 0 -l 4096 "/dev/$plain" 2>&1 | grep -o 'Operation not supported')" "Operation not supported"
	check_fails "secure discard is refused" blkdiscard -f -s -o 0 -l 4096 "/dev/$plain"
	check "nothing has changed" cmp -n 4194304 $tmp.image "/dev/$plain"
}

# count_writes: the number of write requests of the disk.
count_writes() {
	awk '{ print $5 }' "/sys/block/$plain/stat"
}

# count_requests COMMAND…: the number of write requests that the command makes.
count_requests() {
	before=$(count_writes)
	"$@" || return
	echo $(($(count_writes) - before))
}

# test_write_zeroes: 5 subtests.
test_write_zeroes() {
	if [ "$DRIVER" != rust_pmem ]; then
		for name in "the most at once" "24 MiB and a sector are two" "a page is punched" "the last sector is one" \
			"write-zeroes: zeroes there, and nowhere else"; do
			skip "$name" "C is handed zeroes to write, and can't be punched"
		done
		return
	fi
	echo 1 >"/sys/block/$plain/queue/iostats"
	is "the most at once" "$(cat "/sys/block/$plain/queue/write_zeroes_max_bytes")" 16777216
	is "24 MiB and a sector are two" "$(count_requests blkdiscard -f -z -o 512 -l $((24 * 1048576 + 512)) "/dev/$plain" 2>/dev/null)" 2
	check "a page is punched" fallocate -p -o 30M -l 4K "/dev/$plain"
	is "the last sector is one" "$(count_requests blkdiscard -f -z -o $((32 * 1048576 - 512)) -l 512 "/dev/$plain" 2>/dev/null)" 1
	fallocate -p -o 512 -l $((24 * 1048576 + 512)) $tmp.image
	fallocate -p -o 30M -l 4K $tmp.image
	fallocate -p -o $((32 * 1048576 - 512)) -l 512 $tmp.image
	check "write-zeroes: zeroes there, and nowhere else" cmp -n $((32 * 1048576)) $tmp.image "/dev/$plain"
	echo 0 >"/sys/block/$plain/queue/iostats"
}

need cmp fallocate blkdiscard perl
plan 91
load_driver
plain=$(plain_disk)
truncate -s 32M $tmp.image
pmem-io fill $tmp.image
pmem-io fill --direct "/dev/$plain"
test_ranges
test_write_zeroes
test_disk "raw" "$plain"
test_disk "fsdax" "$(labelled_disk -m fsdax -M mem -s 64M)"
test_disk "sector" "$(labelled_disk -m sector -s 64M)"
report_rows
