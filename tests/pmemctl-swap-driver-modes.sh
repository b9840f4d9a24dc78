#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl swap-driver moves raw, fsdax and sector namespaces to the other driver and back with their data.
# kernel: device_dax
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	unload_both_drivers
}

# make_mode MODE OPTIONS…: makes one more namespace in the region.
make_mode() {
	ndctl create-namespace -r "$(labelled_region)" -m "$@" >"/tmp/$1.json"
	settle
}

# json_of MODE KEY: from ndctl's output for that namespace.
json_of() {
	jq -r ".$2" "/tmp/$1.json"
}

# devices_of DRIVER: the devices that it is bound to.
devices_of() {
	find "/sys/bus/nd/drivers/$1/" -maxdepth 1 -type l -name '*.*' -printf '%f\n' | sort | tr '\n' ' '
}

# fill_disks SEED, verify_disks SEED: the disks without a file system.
fill_disks() {
	for fill_disk in "$raw" "$sector" "$e820"; do
		pmem-io fill --direct --length 2M "/dev/$fill_disk" --seed "$1" || return
	done
}

verify_disks() {
	for verify_disk in "$raw" "$sector" "$e820"; do
		pmem-io verify --direct --length 2M "/dev/$verify_disk" --seed "$1" || return
	done
}

# check_file FILE SEED: the file of the file system is intact, through a mapping with MAP_SYNC.
check_file() {
	mount_dax "$fsdax" && pmem-io map-verify --sync "$MNT/$1" --seed "$2" && umount $MNT && e2fsck -fn "/dev/$fsdax"
}

need_both_drivers
need pmemctl jq e2fsck
plan 20
load_driver
fresh_labels
make_mode raw -s 32M
make_mode sector -s 32M -l 4096
make_mode fsdax -s 64M -M dev
make_mode devdax -s 32M
raw=$(json_of raw blockdev) sector=$(json_of sector blockdev) fsdax=$(json_of fsdax blockdev) e820=$(e820_disk)
load_both_drivers
other=$(other_driver)
devices=$(devices_of "$DRIVER") dax=$(devices_of dax_pmem)
is_empty "the other has nothing" devices_of "$other"
make_fs ext4 "$fsdax"
mount_dax "$fsdax"
fallocate -l 2M $MNT/file
pmem-io map-write --sync --durable flush $MNT/file --seed 5
umount $MNT
check "written" fill_disks 1

check "all are moved" pmemctl swap-driver --to "$other" --all
is "by the device that is bound: namespace, pfn, btt" "$(devices_of "$other")" "$devices"
is_empty "none is left" devices_of "$DRIVER"
check "read" verify_disks 1
check "the file system" check_file file 5
check "written by the other" fill_disks 2
is "device DAX stays where it is" "$(devices_of dax_pmem)" "$dax"
check_fails "and is refused" pmemctl swap-driver --to "$DRIVER" "$(json_of devdax dev)"
check "with that reason" sh -c "pmemctl swap-driver --to $DRIVER $(json_of devdax dev) 2>&1 | grep -q 'device DAX, dax_pmem'"

check "back, by the name of the disk" pmemctl swap-driver --to "$DRIVER" "/dev/$raw"
check "by the name of the namespace" pmemctl swap-driver --to "$DRIVER" "$(json_of fsdax dev)"
check "by the name of what claims it" pmemctl swap-driver --to "$DRIVER" "$(device_of_disk "$sector")"
check "two names of one" pmemctl swap-driver --to "$DRIVER" "$e820" "$(e820_ns)"
ln -s "/dev/$(plain_disk)" /tmp/link
check "by a link" pmemctl swap-driver --to "$DRIVER" /tmp/link
rm /tmp/link
is "all are back" "$(devices_of "$DRIVER")" "$devices"
check "what the other wrote" verify_disks 2
check "the file system, still" check_file file 5
is "there already" "$(pmemctl swap-driver --to "$DRIVER" --all --json | jq -r '.reports[].result' | sort -u)" there-already
