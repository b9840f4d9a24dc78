#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Data above 4 GiB of a disk is at its own offset, and not at the same offset below 4 GiB.
# vm: big
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	dmsetup remove high 2>/dev/null
}

# test_above_and_below NAME: compares 1 MiB at offset 1 MiB with the same place 4 GiB above.
test_above_and_below() {
	check "$1: written below" pmem-io fill --direct "/dev/$disk" --offset 1M --length 1M --seed 1
	check "$1: written above" pmem-io fill --direct "/dev/$disk" --offset 4097M --length 1M --seed 2
	check "$1: read below" pmem-io verify --direct "/dev/$disk" --offset 1M --length 1M --seed 1
	check "$1: read above" pmem-io verify --direct "/dev/$disk" --offset 4097M --length 1M --seed 2
}

plan 11
need dmsetup
modprobe dm-mod
load_driver
disk=$(labelled_disk -m raw -s 5G)
test_above_and_below "raw"
is "raw: the last sector" "$(pmem-io pwrite --direct "/dev/$disk" --offset $((5120 * 1048576 - 512)) --length 512)" 512
disk=$(labelled_disk -m fsdax -M dev -s 5G)
test_above_and_below "fsdax"
# 64 MiB from 4.5 GiB on.
echo "0 131072 linear /dev/$disk $((4608 * 2048))" | dmsetup create high
dmsetup mknodes
make_fs ext4 mapper/high
mount_dax mapper/high
fallocate -l 2M $MNT/file
check "fsdax: stored through a mapping above" pmem-io map-write --sync --durable flush $MNT/file
start=$(cat "/sys/block/$disk/device/resource")
check "fsdax: it is above" test "$(($(pmem-io phys $MNT/file) - start))" -ge $((4608 * 1048576))
