#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Punched holes, preallocated blocks and reused blocks of a DAX file read as zeroes, not as the old contents of the memory.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# is_zero OFFSET BYTES: through a mapping and by read(2).
is_zero() {
	xfs_io -r -c "mmap -r 0 1m" -c "mread -v $1 $2" $MNT/file >/tmp/dax-zeroed-blocks.read || return
	[ -s /tmp/dax-zeroed-blocks.read ] || return
	! cut -c 11-58 /tmp/dax-zeroed-blocks.read | grep -q '[1-9a-f]' || return
	cmp -n "$2" -i "$1:0" $MNT/file /dev/zero
}

# test_zeroes NAME TYPE
test_zeroes() {
	make_fs "$2" "$disk"
	mount_dax "$disk"
	fallocate -l 1M $MNT/file
	check "$1: allocated only" is_zero 4096 65536
	pmem-io map-write $MNT/file
	fallocate -p -o 8192 -l 12288 $MNT/file
	check "$1: a hole" is_zero 8192 12288
	check "$1: what is before it" pmem-io map-verify --length 8K $MNT/file
	check "$1: what is after it" pmem-io map-verify --offset 20K $MNT/file
	fallocate -p -o 30000 -l 1000 $MNT/file
	check "$1: a part of a page" is_zero 30000 1000
	check "$1: the page's other part" cmp -n 28672 -i 31000:0 $MNT/file /tmp/dax-zeroed-blocks.part
	pmem-io map-write --offset 8K --length 4K --seed 7 $MNT/file
	check "$1: a page of the hole, written" pmem-io verify --offset 8K --length 4K --seed 7 $MNT/file
	check "$1: its neighbour" is_zero 12288 8192
	umount $MNT
}

plan 16
need xfs_io cmp
load_driver
disk=$(labelled_disk -m fsdax -M mem)
# Fill the memory with old data: ext4 puts files behind the first 128 MiB.
pmem-io fill --direct --length "$(blockdev --getsize64 "/dev/$disk")" "/dev/$disk"
truncate -s 64K /tmp/dax-zeroed-blocks.image
pmem-io fill /tmp/dax-zeroed-blocks.image
tail -c +31001 /tmp/dax-zeroed-blocks.image >/tmp/dax-zeroed-blocks.part
test_zeroes "ext4" ext4
test_zeroes "XFS" xfs
rm -f /tmp/dax-zeroed-blocks.*
