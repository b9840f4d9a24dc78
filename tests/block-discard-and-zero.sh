#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Discard and zeroing requests, and all modes of fallocate(2), have the recorded result and effect on the data.
#
# Includes offsets and lengths that are not multiples of a sector.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

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
			syscall(285, fileno($f), int $ARGV[1], 4096, 4096) >= 0 or die "$!\n"' "/dev/$disk" $mode
	done
	test_effect "truncate" truncate -s 8192 "/dev/$disk"
	add_row "$name: the size" "$(blockdev --getsize64 "/dev/$disk")"
	add_row "$name: limits" "$(cat "/sys/block/$disk/queue/discard_max_bytes" "/sys/block/$disk/queue/write_zeroes_max_bytes" \
		"/sys/block/$disk/queue/discard_granularity" "/sys/block/$disk/queue/write_zeroes_unmap_max_bytes" | paste -sd ' ')"
}

tmp=/tmp/block-discard-and-zero

cleanup() {
	rm -f $tmp.*
}

need cmp fallocate blkdiscard
load_driver
test_disk "raw" "$(plain_disk)"
test_disk "fsdax" "$(labelled_disk -m fsdax -M mem -s 64M)"
test_disk "sector" "$(labelled_disk -m sector -s 64M)"
report_rows
