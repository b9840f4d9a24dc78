#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DAX through dm-linear and on a partition maps the right pages of the disk.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	dmsetup remove part 2>/dev/null
	wipefs -aq -f "/dev/$disk"
	partx -d "/dev/$disk" 2>/dev/null
}

# test_offset NAME DISK BYTES: maps a file there, and checks its physical address.
test_offset() {
	make_fs ext4 "$2"
	check "$1: mounted with DAX" mount_dax "$2"
	fallocate -l 2M $MNT/file
	check "$1: stored to" pmem-io map-write --sync --durable flush $MNT/file
	check "$1: read" pmem-io verify $MNT/file
	sector=$(sector_of $MNT/file)
	is "$1: mapped where it is" "$(($(pmem-io phys $MNT/file) - start))" $((sector * 512 + $3))
	umount $MNT
}

plan 9
need dmsetup filefrag
modprobe dm-mod
load_driver
disk=$(labelled_disk -m fsdax -M mem)
start=$(cat "/sys/block/$disk/device/resource")
echo "0 131072 linear /dev/$disk 8192" | dmsetup create part
dmsetup mknodes
test_offset "linear" mapper/part $((8192 * 512))
dmsetup remove part
echo 'start=4096, size=131072' | sfdisk -q --label dos "/dev/$disk"
test_offset "partition" "${disk}p1" $((4096 * 512))
wipefs -aq "/dev/$disk"
echo 'start=4097, size=131072' | sfdisk -q --label dos "/dev/$disk"
make_fs ext4 "${disk}p1"
check_fails "a partition at an odd sector has no DAX" mount_dax "${disk}p1"
