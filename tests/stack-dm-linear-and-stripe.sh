#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# dm-linear and dm-stripe over two namespaces support DAX and MAP_SYNC, and each byte is at the place given by the
# table.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

need dmsetup fio
cleanup() {
	umount $MNT 2>/dev/null
	dmsetup remove_all --noudevsync --noudevrules
}

# test_dax NAME: a file system on the mapped device.
test_dax() {
	is "$1: the queue has DAX" "$(queue_attributes "mapper/$1" dax)" dax:1
	record "$1: queue" "$(queue_attributes "mapper/$1" write_cache fua logical_block_size physical_block_size minimum_io_size optimal_io_size \
		max_hw_sectors_kb rotational)"
	make_fs ext4 "mapper/$1"
	check "$1: mounted with DAX" mount_dax "mapper/$1"
	truncate -s 24M $MNT/file
	check "$1: stores by MAP_SYNC" pmem-io map-write --sync --durable flush $MNT/file
	check "$1: read(2) sees them" pmem-io verify $MNT/file
	check "$1: fio by read and write" fio_verify $MNT/fio --size=8M --ioengine=psync
	umount $MNT
	check "$1: fsck" e2fsck -fn "/dev/mapper/$1"
}

plan 27
load_driver
make_two_disks -m fsdax -M mem -s 64M
half=$(sector_count "$FIRST")

dm_create linear "0 $half linear /dev/$FIRST 0\n$half $((half / 2)) linear /dev/$SECOND 2048"
test_dax linear
pmem-io fill --direct /dev/mapper/linear --offset $((half * 512 - 4194304)) --length 8M
check "linear: the end of the first" cmp -n 4194304 -i $((half * 512 - 4194304)) "/dev/$FIRST" /dev/mapper/linear
check "linear: the start of the second" cmp -n 4194304 -i $((2048 * 512)):$((half * 512)) "/dev/$SECOND" /dev/mapper/linear
record_result "linear: held by" ls "/sys/block/$FIRST/holders"
record_unload_refused "linear: the driver is in use"
dm_remove linear

# Chunks of 1 MiB, alternating.
dm_create stripe "0 $half striped 2 2048 /dev/$FIRST 0 /dev/$SECOND 0"
test_dax stripe
pmem-io fill --direct /dev/mapper/stripe --length 8M --block 3M
check "stripe: the second chunk is on the second" cmp -n 1048576 -i 0:1048576 "/dev/$SECOND" /dev/mapper/stripe
check "stripe: the third on the first again" cmp -n 1048576 -i 1048576:2097152 "/dev/$FIRST" /dev/mapper/stripe
dm_remove stripe
# test_misaligned NAME TABLE: a table that is not aligned to pages. Device mapper lets it be mounted with DAX.
test_misaligned() {
	dm_create askew "$2"
	record "$1: the queue has DAX" "$(queue_attributes mapper/askew dax)"
	make_fs ext4 mapper/askew 2>/dev/null
	mount_dax mapper/askew
	truncate -s 64K $MNT/file
	record_result "$1: a DAX file" pmem-io fill $MNT/file
	umount $MNT
	mount -o dax=never /dev/mapper/askew $MNT
	record_result "$1: the same file without DAX" sh -c "pmem-io verify $MNT/file 2>&1 | head -n 1"
	umount $MNT
	dm_remove askew
}

test_misaligned "stripes of 2 KiB" "0 $half striped 2 4 /dev/$FIRST 0 /dev/$SECOND 0"
test_misaligned "linear from sector 3" "0 65536 linear /dev/$FIRST 3"
check_unloads
