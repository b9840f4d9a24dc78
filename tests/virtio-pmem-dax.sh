#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# virtio-pmem supports DAX, and refuses MAP_SYNC, because the host must be asked to make a store durable.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
. "$(dirname "$0")/lib/test.sh"

need pmem-io
cleanup() {
	umount $MNT 2>/dev/null
}

plan 8
load_driver
disk=$(disk_of "$(virtio_ns)")
check "it has a disk" test -b "/dev/$disk"
is "which does not know how it is flushed" "$(cat "/sys/block/$disk/queue/fua")" 0
make_fs ext4 "$disk"
check "mounted with DAX" mount_dax "$disk"
fallocate -l 1M $MNT/file
check "stored to and flushed by fsync" pmem-io map-write --durable fsync $MNT/file
check "read(2) sees it" pmem-io verify $MNT/file
is "MAP_SYNC is refused" "$(pmem-io map-write --sync --durable flush $MNT/file 2>&1 | grep -c 'not supported')" 1
umount $MNT
check "mounted again" mount_dax "$disk"
check "it is there" pmem-io map-verify $MNT/file
