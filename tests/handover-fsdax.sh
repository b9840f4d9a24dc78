#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A file system on an fsdax namespace stays consistent over a handover, and the info block stays unchanged.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	unload_both_drivers
}

# first_bytes_sum DISK: fails if they can't be read, which a pipe would hide.
first_bytes_sum() {
	head -c 8192 "$1" >/tmp/first_bytes && md5sum </tmp/first_bytes
}

# info_block_sum: the checksum of all that precedes the struct pages.
info_block_sum() {
	with_force_raw "$namespace" first_bytes_sum
}

# check_file_system NAME FILE SEED OTHER-FILE OTHER-SEED: the file system is clean and has FILE; stores OTHER-FILE.
check_file_system() {
	check "$1: fsck" e2fsck -fn "/dev/$disk"
	mount_dax "$disk"
	check "$1: the file is there" pmem-io map-verify --sync "$MNT/$2" --seed "$3"
	fallocate -l 2M "$MNT/$4"
	check "$1: another is stored" pmem-io map-write --sync --durable flush "$MNT/$4" --seed "$5"
	umount $MNT
}

# test_handover MAP
test_handover() {
	disk=$(labelled_disk -m fsdax -M "$1" -s 32M)
	namespace=$(jq -r .dev /tmp/labelled_disk.json)
	make_fs ext4 "$disk"
	mount_dax "$disk"
	fallocate -l 2M $MNT/first
	pmem-io map-write --sync --durable flush $MNT/first --seed 1
	umount $MNT
	size=$(blockdev --getsize64 "/dev/$disk")
	sum=$(md5sum <"/dev/$disk")
	block=$(info_block_sum)

	swap_drivers
	is "$1: the info block" "$(info_block_sum)" "$block"
	is "$1: size" "$(blockdev --getsize64 "/dev/$disk")" "$size"
	is "$1: all bytes of the data" "$(md5sum <"/dev/$disk")" "$sum"
	check_file_system "$1, the other driver" first 1 second 2

	swap_drivers
	is "$1: the info block, still" "$(info_block_sum)" "$block"
	check_file_system "$1, the first driver again" second 2 third 3
}

need_both_drivers
plan 20
need e2fsck
load_driver
test_handover mem
test_handover dev
