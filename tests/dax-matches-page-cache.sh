#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The same file has the same bytes with DAX and through the page cache; locking and syncing differ as recorded.
# compare
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# test_both TYPE
test_both() {
	make_fs "$1" "$disk"
	mount_dax "$disk"
	fallocate -l 4M $MNT/file
	pmem-io map $MNT/file store >/dev/null
	record "$1, DAX: the mapping" \
		"$(pmem-io map --length 2M $MNT/file load smaps=VmFlags smaps=KernelPageSize smaps=Rss smaps=Pss smaps=Locked)"
	umount $MNT
	mount -o dax=never "/dev/$disk" $MNT
	check "$1, page cache: what was stored with DAX" pmem-io map-verify $MNT/file
	is "$1, page cache: MAP_SYNC" "$(pmem-io map --sync $MNT/file load 2>&1)" "pmem-io: mmap: Operation not supported (os error 95)"
	record "$1, page cache: the mapping" "$(pmem-io map --length 2M $MNT/file load lock smaps=VmFlags smaps=Locked)"
	check "$1, page cache: stored to and synced" pmem-io map-write --seed 2 --durable fsync $MNT/file
	check "$1, page cache: so the disk has it" pmem-io verify --seed 2 --direct $MNT/file
	umount $MNT
	mount_dax "$disk"
	check "$1, DAX again: what was stored through the page cache" pmem-io map-verify --seed 2 $MNT/file
	# Reads of the disk use the page cache of the disk.
	sector=$(sector_of $MNT/file)
	is "$1: the file's blocks, read off the disk" \
		"$(dd if="/dev/$disk" bs=1M count=1 iflag=skip_bytes skip=$((sector * 512)) status=none | md5sum)" \
		"$(head -c 1048576 $MNT/file | md5sum)"
	umount $MNT
}

plan 16
need filefrag
load_driver
disk=$(labelled_disk -m fsdax -M mem)
test_both ext4
test_both xfs
