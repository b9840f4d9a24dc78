#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The driver leaves a devdax namespace to fsdev_dax, as to device_dax, and takes it back as fsdax afterwards.
#
# fsdev_dax is device DAX for file systems such as famfs.
# compare
# kernel: device_dax fsdev_dax
# vm: labels
. "$(dirname "$0")/lib/test.sh"

need daxctl
dax=/sys/bus/dax
cleanup() {
	[ -z "$device" ] || echo "$device" >"$dax/drivers/fsdev_dax/remove_id"
	rmmod fsdev_dax
	rmmod device_dax
} 2>/dev/null

# move_device FROM TO: moves the device between drivers.
move_device() {
	echo "$device" >"$dax/drivers/$1/unbind"
	echo "$device" >"$dax/drivers/$2/bind"
}

# dax_driver: the name of its driver.
dax_driver() {
	basename "$(readlink "$dax/devices/$device/driver")"
}

# bind_error DRIVER: the error of binding the driver.
bind_error() {
	env echo "$device" 2>&1 >"$dax/drivers/$1/bind" | sed 's/.*: //'
}

count_in_iomem() {
	grep -c ": $device\$" /proc/iomem || :
}

plan 20
load_driver
device=
fresh_labels
device=$(ndctl create-namespace -r "$(labelled_region)" -m devdax -M mem -s 128M | jq -r '.daxregion.devices[0].chardev')
settle
modprobe -a device_dax fsdev_dax
is "device DAX, by device_dax" "$(dax_driver)" device_dax
check "it is mapped" pmem-io map-write "/dev/$device" --length 4M
is "its range is claimed" "$(count_in_iomem)" 1
echo "$device" >$dax/drivers/device_dax/unbind
is "unbound: nobody claims it" "$(count_in_iomem)" 0
check "fsdev_dax takes it" sh -c "echo $device >$dax/drivers/fsdev_dax/new_id"
is "it is the driver" "$(dax_driver)" fsdev_dax
is "and claims it" "$(count_in_iomem)" 1
record "what daxctl says of it" "$(daxctl list -d "$device" | jq -c '.[0] | [.size, .align, .mode, .state]')"
record "what it shows" "$(cd "$dax/devices/$device" && grep . size align modalias memmap_on_memory)"
record "it can be opened, but not read" "$(dd if="/dev/$device" bs=4k count=1 status=none 2>&1 | sed 's/.*: //')"
record "nor mapped" "$(pmem-io map-read "/dev/$device" --length 4K 2>&1)"
record "a second time" "$(bind_error fsdev_dax)"
record "device_dax can't have it meanwhile" "$(bind_error device_dax)"
check "back to device_dax" move_device fsdev_dax device_dax
is "which is the driver" "$(dax_driver)" device_dax
check "its bytes are there" pmem-io map-verify "/dev/$device" --length 4M
check "and once more to fsdev_dax" move_device device_dax fsdev_dax
# The namespace is changed to fsdax while fsdev_dax has it.
echo "$device" >$dax/drivers/fsdev_dax/remove_id
device=
disk=$(labelled_disk -m fsdax -M mem -s 128M)
check "made fsdax again, it has a disk" test -b "/dev/$disk"
make_fs ext4 "$disk"
check "with the pages of a file system" mount_dax "$disk"
truncate -s 4M $MNT/file
check "which maps them" pmem-io map-write --sync --durable flush $MNT/file
umount $MNT
