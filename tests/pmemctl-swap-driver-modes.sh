#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl swap-driver moves raw, fsdax and sector namespaces to the other driver and back, with their data, while the machine runs.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	unload_both_drivers
}

# make MODE OPTIONS…: one more namespace on the region.
make() {
	ndctl create-namespace -r "$(labelled_region)" -m "$@" >"/tmp/$1.json"
	settle
}

# of MODE KEY: what ndctl said of it.
of() {
	jq -r ".$2" "/tmp/$1.json"
}

# all_of DRIVER: which devices it has.
all_of() {
	find "/sys/bus/nd/drivers/$1/" -maxdepth 1 -type l -name '*.*' -printf '%f\n' | sort | tr '\n' ' '
}

# fill SEED, verify SEED: the disks without a file system.
fill() {
	for fill_disk in "$raw" "$sector" "$e820"; do
		pmem-io fill --direct --length 2M "/dev/$fill_disk" --seed "$1" || return
	done
}

verify() {
	for verify_disk in "$raw" "$sector" "$e820"; do
		pmem-io verify --direct --length 2M "/dev/$verify_disk" --seed "$1" || return
	done
}

# serves FILE SEED: the file of the file system is there, by a mapping with MAP_SYNC.
serves() {
	mount_dax "$fsdax" && pmem-io map-verify --sync "$MNT/$1" --seed "$2" && umount $MNT && e2fsck -fn "/dev/$fsdax"
}

need_both_drivers
need pmemctl jq e2fsck
plan 20
load_driver
fresh_labels
make raw -s 32M
make sector -s 32M -l 4096
make fsdax -s 64M -M dev
make devdax -s 32M
raw=$(of raw blockdev) sector=$(of sector blockdev) fsdax=$(of fsdax blockdev) e820=$(e820_disk)
load_both_drivers
other=$(other_driver)
devices=$(all_of "$DRIVER") dax=$(all_of dax_pmem)
is "the other has nothing" "$(all_of "$other")" ""
make_fs ext4 "$fsdax"
mount_dax "$fsdax"
fallocate -l 2M $MNT/file
pmem-io map-write --sync --durable flush $MNT/file --seed 5
umount $MNT
check "written" fill 1

check "all are moved" pmemctl swap-driver --to "$other" --all
is "by the device that is bound: namespace, pfn, btt" "$(all_of "$other")" "$devices"
is "none is left" "$(all_of "$DRIVER")" ""
check "read" verify 1
check "the file system" serves file 5
check "written by the other" fill 2
is "device DAX stays where it is" "$(all_of dax_pmem)" "$dax"
check_fails "and is refused" pmemctl swap-driver --to "$DRIVER" "$(of devdax dev)"
check "with that reason" sh -c "pmemctl swap-driver --to $DRIVER $(of devdax dev) 2>&1 | grep -q 'device DAX, dax_pmem'"

check "back, by the name of the disk" pmemctl swap-driver --to "$DRIVER" "/dev/$raw"
check "by the name of the namespace" pmemctl swap-driver --to "$DRIVER" "$(of fsdax dev)"
check "by the name of what claims it" pmemctl swap-driver --to "$DRIVER" "$(device_of_disk "$sector")"
check "two names of one" pmemctl swap-driver --to "$DRIVER" "$e820" "$(e820_ns)"
ln -s "/dev/$(plain_disk)" /tmp/link
check "by a link" pmemctl swap-driver --to "$DRIVER" /tmp/link
rm /tmp/link
is "all are back" "$(all_of "$DRIVER")" "$devices"
check "what the other wrote" verify 2
check "the file system, still" serves file 5
is "there already" "$(pmemctl swap-driver --to "$DRIVER" --all --json | jq -r '.[].result' | sort -u)" there-already
