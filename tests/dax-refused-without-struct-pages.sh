#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Memory without struct pages has no DAX: with dax=always, ext4 refuses to mount and XFS mounts without DAX.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

plan 8
load_driver
disk=$(plain_disk)
is "the queue has no DAX" "$(cat "/sys/block/$disk/queue/dax")" 0
make_fs ext4 "$disk"
dmesg -C
check_fails "ext4: not mounted with DAX" mount_dax "$disk"
is "ext4: and says why" "$(dmesg | grep -c "EXT4-fs ($disk): DAX unsupported by block device")" 1
check "ext4: mounted without" mount "/dev/$disk" $MNT
truncate -s 1M $MNT/file
check_fails "ext4: no MAP_SYNC" pmem-io map-write --sync $MNT/file
check "ext4: a mapping without serves" pmem-io map-write --durable msync $MNT/file
umount $MNT
disk=$(labelled_disk -m raw)
make_fs xfs "$disk"
mount -o dax=always "/dev/$disk" $MNT
check "XFS: mounted without" grep -q "^/dev/$disk .*dax=never" /proc/mounts
truncate -s 1M $MNT/file
check_fails "XFS: no MAP_SYNC" pmem-io map-write --sync $MNT/file
