#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Data stored through a MAP_SYNC mapping is visible to read(2), another mapping and, after unmount, the block device.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# check_on_disk DISK SECTOR MIB: the disk holds this megabyte of the file at the sector.
check_on_disk() {
	dd if="/dev/$1" bs=1M count=1 iflag=direct,skip_bytes skip=$(($2 * 512)) status=none >/tmp/dax-map-sync-stores.found
	# The pattern depends on the offset in the file.
	truncate -s 0 /tmp/dax-map-sync-stores.file
	dd if=/tmp/dax-map-sync-stores.found of=/tmp/dax-map-sync-stores.file bs=1M seek="$3" status=none
	pmem-io verify --offset "$3"M --length 1M /tmp/dax-map-sync-stores.file
}

# test_stores NAME TYPE DISK
test_stores() {
	file=$MNT/file
	make_fs "$2" "$3"
	check "$1: mounted with DAX" mount_dax "$3"
	fallocate -l 2M $file
	check "$1: stored to a MAP_SYNC mapping" pmem-io map-write --sync --durable flush $file
	check "$1: read(2) sees it" pmem-io verify $file
	check "$1: so does direct I/O" pmem-io verify --direct $file
	check "$1: so does another mapping" pmem-io map-verify $file
	set -- "$1" "$3" "$(sector_of $file)"
	umount $MNT
	check "$1: so does the disk, where the file was" check_on_disk "$2" "$3" 0
}

plan 18
need filefrag
load_driver
test_stores "ext4, e820" ext4 "$(e820_disk)"
test_stores "ext4, map in RAM" ext4 "$(labelled_disk -m fsdax -M mem)"
test_stores "XFS, map on the device" xfs "$(labelled_disk -m fsdax -M dev)"
rm -f /tmp/dax-map-sync-stores.*
