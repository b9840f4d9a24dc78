#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# ramdax adds labels to e820 memory: namespaces of each mode coexist and come back after reloads of driver and ramdax.
# compare
# kernel: device_dax
# vm: ramdax
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider-rows.sh"

cleanup() {
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
	echo e820_pmem >/sys/bus/platform/drivers/ramdax/unbind 2>/dev/null
	echo >/sys/bus/platform/devices/e820_pmem/driver_override
}

# Keep nd_e820 off the memory.
load_providers() {
	modprobe -a libnvdimm device_dax
}

# make_one ARGUMENTS OF ndctl create-namespace…: makes a namespace; sets disk.
make_one() {
	ndctl create-namespace -r "$region" "$@" >/tmp/provider-ramdax.json
	settle
	record "$*: ndctl's answer" "$(jq -r '"\(.dev) \(.mode) \(.map) \(.size) \(.blockdev) \(.align) \(.sector_size)"' /tmp/provider-ramdax.json)"
	disk=$(jq -r .blockdev /tmp/provider-ramdax.json)
}

# list_all: each namespace.
list_all() {
	ndctl list -N | jq -r 'sort_by(.dev)[] | "\(.dev) \(.mode) \(.map) \(.size) \(.blockdev // .chardev)"'
}

plan 49
remove_providers
load_driver
check "ramdax has the memory" bind_ramdax
region=$(region_of ramdax)
record "ramdax: dimm" "$(cat "$ND"/nmem*/devtype "$ND"/nmem*/commands | xargs)"
record "without labels: nodes" "$(cd /dev && echo pmem*)"
fresh_labels
make_one -m fsdax -M mem -s 64M
fsdax=$disk
record_bus ramdax "$(ramdax_ns)"
record_disk "ramdax, fsdax" "$disk"
check_files "ramdax, fsdax" "$disk"
check_file_after_reload "ramdax, fsdax" "$disk"
make_one -m fsdax -M dev -s 32M
device=$disk
record_disk "ramdax, fsdax, map on the device" "$disk"
check_files "ramdax, fsdax, map on the device" "$disk"
check_file_after_reload "ramdax, fsdax, map on the device" "$disk"
make_one -m raw -s 32M
raw=$disk
record_disk "ramdax, raw" "$disk"
mkfs.ext4 -q -F -b 4096 "/dev/$disk"
record_result "ramdax, raw: mounted with DAX" try_dax "$disk"
umount $MNT 2>/dev/null || :
check_data "ramdax, raw" "$disk"
check_machine_check "ramdax, raw" "$disk"
make_one -m sector -s 32M
sector=$disk
record_disk "ramdax, sector" "$disk"
check_data "ramdax, sector" "$disk"
make_one -m devdax -s 32M
dax=$(jq -r '.daxregion.devices[0].chardev' /tmp/provider-ramdax.json)
check "devdax: stored to" pmem-io map-write --length $BYTES "/dev/$dax"
record "all of them" "$(list_all)"
record_result "more than there is" ndctl create-namespace -r "$region" -m raw -s 256M

echo e820_pmem >/sys/bus/platform/drivers/ramdax/unbind
is "without ramdax: nodes" "$(cd /dev && echo pmem* dax*)" "pmem* dax*"
echo e820_pmem >/sys/bus/platform/drivers/ramdax/bind
settle
record "with ramdax again: all of them" "$(list_all)"
mount_dax "$fsdax"
check "with ramdax again: a file, map in RAM" pmem-io map-verify --sync $MNT/file --seed 8
umount $MNT
mount_dax "$device"
check "with ramdax again: a file, map on the device" pmem-io map-verify --sync $MNT/file --seed 8
umount $MNT
check "with ramdax again: raw" pmem-io verify --direct --length $BYTES "/dev/$raw" --seed 7
check "with ramdax again: sector" pmem-io verify --direct --length $BYTES "/dev/$sector" --seed 7
