#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# virtio-pmem survives an unbind of its driver under I/O and under DAX with its synced data, and a device is hot-added.
# compare
# vm: hotplug
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/busy.sh"

VIRTIO=/sys/bus/virtio/drivers/virtio_pmem

cleanup() {
	umount $MNT 2>/dev/null
	[ -e "$VIRTIO/$device" ] || echo "$device" >$VIRTIO/bind
}

disk_is_gone() {
	[ ! -e "/dev/$disk" ]
}

namespace_is_back() {
	disk_of "$(virtio_ns)" >/dev/null
}

# other_disk: the disk of another virtio-pmem device.
other_disk() {
	disk_of "$(namespaces virtio-pmem | grep -vx "$namespace")"
}

need fio
plan 19
load_driver
namespace=$(virtio_ns)
disk=$(disk_of "$namespace")
device=$(find $VIRTIO/ -name 'virtio[0-9]*' -printf '%f')
pmem-io fill --length 4M "/dev/$disk" --seed 1
start_fio "/dev/$disk" --allow_file_create=0 --filename="/dev/$disk" --direct=1 --offset=8M --size=16M --ioengine=psync --fsync=16 --time_based --runtime=120
check "raw: the provider is unbound" sh -c "echo $device >$VIRTIO/unbind"
check_fio_fails raw
check "raw: no disk" disk_is_gone
check "raw: nothing in iomem" sh -c "! grep -qw $namespace /proc/iomem"
check "raw: the provider comes back" sh -c "echo $device >$VIRTIO/bind"
check "raw: a disk" wait_for 60 namespace_is_back
namespace=$(virtio_ns)
disk=$(disk_of "$namespace")
check "raw: what was synced is there" pmem-io verify --length 4M "/dev/$disk" --seed 1

make_fs ext4 "$disk"
mount_dax "$disk"
truncate -s 2M $MNT/file
pmem-io fill $MNT/file --seed 2
sync
start_fio $MNT/ --directory=$MNT --size=8M --ioengine=psync --fsync=16 --time_based --runtime=120
check "ext4: the provider is unbound" sh -c "echo $device >$VIRTIO/unbind"
check_fio_fails ext4
check "ext4: umount" umount $MNT
check "ext4: no disk" disk_is_gone
check "ext4: the provider comes back" sh -c "echo $device >$VIRTIO/bind"
check "ext4: a disk" wait_for 60 namespace_is_back
namespace=$(virtio_ns)
disk=$(disk_of "$namespace")
check "ext4: repaired by e2fsck" sh -c "e2fsck -p /dev/$disk >/dev/null || [ \$? -le 1 ]"
check "ext4: mounted again" mount_dax "$disk"
check "ext4: what was synced is there" pmem-io verify $MNT/file --seed 2
umount $MNT

host add virtio-pmem size=32M >/dev/null
check "added: a second disk" wait_for 60 other_disk
other=$(other_disk)
check "added: written" pmem-io fill --length 4M "/dev/$other" --seed 3
check "added: read" pmem-io verify --direct --length 4M "/dev/$other" --seed 3
