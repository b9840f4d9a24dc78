#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Discarding and zeroing: requests and fallocate(2) with all its modes, in and out of the grid of sectors, and the data after each.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# after NAME COMMAND…: its answer, and whether the first 256K still are what was written, or where they first are not, and zeroes.
after() {
	after_name=$1
	shift
	pmem-io fill --direct --length 256K "/dev/$disk"
	after_answer=$("$@" 2>&1) && after_answer=ok
	after_answer=${after_answer##*: }
	cmp -l -n 262144 "/dev/$disk" $tmp.pattern >$tmp.differ || :
	if [ -s $tmp.differ ]; then
		# Bytes that were zero before are not told from those that are now.
		after_state=$(awk 'NR == 1 { first = $1 } $2 != "0" { other = 1 } { last = $1 }
			END { printf "%s from %d to %d", other ? "changed" : "zero", int((first - 1) / 512), int((last + 511) / 512) }' $tmp.differ)
	else
		after_state=unchanged
	fi
	add_row "$name: $after_name" "$after_answer, $after_state"
}

# of NAME DISK
of() {
	name=$1 disk=$2
	end=$(blockdev --getsize64 "/dev/$disk")
	sector=$(cat "/sys/block/$disk/queue/logical_block_size")
	pmem-io fill --direct --length 256K "/dev/$disk"
	dd if="/dev/$disk" of=$tmp.pattern bs=256K count=1 iflag=direct status=none
	after "discard" blkdiscard -f -o 0 -l 65536 "/dev/$disk"
	after "secure discard" blkdiscard -f -s -o 0 -l 65536 "/dev/$disk"
	after "zeroing" blkdiscard -f -z -o 4096 -l 65536 "/dev/$disk"
	after "zeroing of a sector" blkdiscard -f -z -o "$sector" -l "$sector" "/dev/$disk"
	after "zeroing of less than a sector" sh -c "pmem-io ioctl /dev/$disk BLKZEROOUT=0,100"
	after "zeroing up to the end" sh -c "pmem-io ioctl /dev/$disk BLKZEROOUT=$((end - 4096)),4096"
	after "zeroing across the end" sh -c "pmem-io ioctl /dev/$disk BLKZEROOUT=$((end - 4096)),8192"
	after "zeroing behind the end" sh -c "pmem-io ioctl /dev/$disk BLKZEROOUT=$end,4096"
	after "discard behind the end" sh -c "pmem-io ioctl /dev/$disk BLKDISCARD=$end,4096"
	after "discard of less than a sector" sh -c "pmem-io ioctl /dev/$disk BLKDISCARD=0,100"
	after "fallocate" fallocate -o 0 -l 8192 "/dev/$disk"
	after "fallocate, keep size" fallocate -n -o 0 -l 8192 "/dev/$disk"
	after "fallocate, punch" fallocate -p -o 8192 -l 8192 "/dev/$disk"
	after "fallocate, zero" fallocate -z -o 8192 -l 8192 "/dev/$disk"
	after "fallocate, zero, keep size" fallocate -z -n -o 8192 -l 8192 "/dev/$disk"
	after "fallocate, zero, out of the grid" fallocate -z -o 100 -l 8192 "/dev/$disk"
	after "fallocate, zero, behind the end" fallocate -z -o "$end" -l 8192 "/dev/$disk"
	after "fallocate, zero, keep size, across the end" fallocate -z -n -o $((end - 4096)) -l 8192 "/dev/$disk"
	after "fallocate, collapse" fallocate -c -o 4096 -l 4096 "/dev/$disk"
	after "fallocate, insert" fallocate -i -o 4096 -l 4096 "/dev/$disk"
	# FALLOC_FL_WRITE_ZEROES, FALLOC_FL_UNSHARE_RANGE, and a mode that is none.
	for mode in 128 64 1024; do
		# shellcheck disable=SC2016 # for perl
		after "fallocate, mode $mode" perl -e 'open(my $f, "+<", $ARGV[0]) or die "$!\n";
			syscall(285, fileno($f), int $ARGV[1], 4096, 4096) >= 0 or die "$!\n"' "/dev/$disk" $mode
	done
	after "truncate" truncate -s 8192 "/dev/$disk"
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
of "raw" "$(plain_disk)"
of "fsdax" "$(labelled_disk -m fsdax -M mem -s 64M)"
of "sector" "$(labelled_disk -m sector -s 64M)"
report_rows
