#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# MAP_SYNC is granted for DAX files of NVDIMM and e820 memory only, also on partitions and dm-linear.
#
# The place of the struct pages does not matter. Files without DAX, and block devices, are refused. What is stored through such a
# mapping is visible to read(2), another mapping and, after unmount, the block device.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"

tmp=/tmp/dax-map-sync
refusal="pmem-io: mmap: Operation not supported (os error 95)"

cleanup() {
	umount $MNT 2>/dev/null
	dmsetup remove part 2>/dev/null
	wipefs -aq -f "/dev/$disk" 2>/dev/null
	partx -d "/dev/$disk" 2>/dev/null
	rm -f $tmp.*
}

# map_sync FILE [OPTION…]: the result of mapping a page with MAP_SYNC and storing to it.
map_sync() {
	file=$1
	shift
	pmem-io map --sync --length 4K "$@" "$file" store 2>&1
}

# test_map_sync NAME TYPE DISK [stores]: 4 subtests; with stores, 6 more.
test_map_sync() {
	make_fs "$2" "$3"
	case ${4-} in
	stores)
		check "$1: mounted with DAX" mount_dax "$3"
		test_stores "$1"
		;;
	*) mount_dax "$3" ;;
	esac
	fallocate -l 4K $MNT/file
	truncate -s 8K $MNT/hole
	is "$1: a file" "$(map_sync $MNT/file)" "store: 1 pages"
	is "$1: a hole" "$(map_sync $MNT/hole)" "store: 1 pages"
	umount $MNT
	[ -z "${4-}" ] || check "$1: so does the disk, where the file was" check_on_disk "$3" "$stored_at"
	mount -o dax=never "/dev/$3" $MNT
	is "$1, dax=never" "$(map_sync $MNT/file)" "$refusal"
	umount $MNT
	mount -o dax=always,ro "/dev/$3" $MNT
	is "$1, mounted read-only: a mapping for reading" "$(pmem-io map --read-only --length 4K $MNT/file verify)" "verify: 1 pages"
	umount $MNT
}

# test_stores NAME: 4 subtests. stored_at is the sector where the file is.
test_stores() {
	fallocate -l 2M $MNT/stored
	check "$1: stored to a MAP_SYNC mapping" pmem-io map-write --sync --durable flush $MNT/stored
	check "$1: read(2) sees it" pmem-io verify $MNT/stored
	check "$1: so does direct I/O" pmem-io verify --direct $MNT/stored
	check "$1: so does another mapping" pmem-io map-verify $MNT/stored
	stored_at=$(sector_of $MNT/stored)
}

# check_on_disk DISK SECTOR: the disk holds the first megabyte of the file there.
check_on_disk() {
	dd if="/dev/$1" bs=1M count=1 iflag=direct,skip_bytes skip=$(($2 * 512)) status=none >$tmp.found
	pmem-io verify --length 1M $tmp.found
}

plan 53
need dmsetup partx filefrag
modprobe dm-mod
load_driver
disk=$(labelled_disk -m fsdax -M mem)
test_map_sync "ext4, map in RAM" ext4 "$disk" stores
test_map_sync "XFS, map in RAM" xfs "$disk"
echo "0 131072 linear /dev/$disk 8192" | dmsetup create part
dmsetup mknodes
test_map_sync "linear" ext4 mapper/part
dmsetup remove part
echo 'start=4096, size=131072' | sfdisk -q --label dos "/dev/$disk"
test_map_sync "partition" ext4 "${disk}p1"
wipefs -aq "/dev/$disk"
is "the disk itself" "$(map_sync "/dev/$disk")" "$refusal"
disk=$(labelled_disk -m fsdax -M dev)
test_map_sync "ext4, map on the device" ext4 "$disk"
test_map_sync "XFS, map on the device" xfs "$disk" stores
e820=$(e820_disk)
test_map_sync "ext4, e820" ext4 "$e820" stores
mount_dax "$e820"
record "VmFlags of a MAP_SYNC mapping" "$(pmem-io map --sync $MNT/file load smaps=VmFlags)"
umount $MNT
plain=$(plain_disk)
make_fs ext4 "$plain"
mount "/dev/$plain" $MNT
fallocate -l 4K $MNT/file
is "no struct pages: a file" "$(map_sync $MNT/file)" "$refusal"
umount $MNT
is "no struct pages: the disk itself" "$(map_sync "/dev/$plain")" "$refusal"
sector=$(labelled_disk -m sector -s 64M)
make_fs ext4 "$sector"
mount "/dev/$sector" $MNT
fallocate -l 4K $MNT/file
is "sector mode: a file" "$(map_sync $MNT/file)" "$refusal"
umount $MNT
dmesg -C
record_result "sector mode: mounted with DAX" mount -o dax=always "/dev/$sector" $MNT
record "sector mode: and the kernel says" "$(dmesg | sed 's/^\[[^]]*\] //; s/pmem[0-9.]*s/DISK/g' | grep -v unmount)"
