#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An error stays listed at the right place through all modes of a namespace, on each provider, until it is dropped.
#
# Checks errors/list, badblocks (which counts from the start of the data), a partition, and reads.
# vm: three
# timeout: 300
. "$(dirname "$0")/lib/test.sh"

AT=$(((8 << 20) + 4096))

# check_listed WHERE DATA SECTOR: the region, the disk and errors/list have the error; the data begins at offset DATA of
# the namespace.
check_listed() {
	device=$ND/$(device_of_disk "$disk")
	# A work item adds it to that of the region.
	wait_for 10 grep -qx "$((AT / 512)) 1" "$ND/$ns/../badblocks" || :
	is "$1" "$(cut -d ' ' -f 1,2 "$device/errors/list"), $(cat "/sys/block/$disk/badblocks"), $(cat "$ND/$ns/../badblocks")" \
		"$AT 512, $3, $((AT / 512)) 1"
}

# data_offset DISK: the offset of its data in the namespace.
data_offset() {
	data_device=$(readlink -f "/sys/block/$1/device")
	echo $(($(cat "$data_device/resource") - $(cat "$ND/$ns/resource")))
}

# check_one_sector_bad NAME DEVICE SECTOR: the sector is unreadable, its neighbours are readable.
check_one_sector_bad() {
	check_fails "$1: a read of it" pmem-io pread --direct --offset $(($3 * 512)) --length 512 "$2"
	is "$1: reads beside it" "$(pmem-io pread --direct --offset $((($3 - 8) * 512)) --length 4096 "$2") $(pmem-io pread --direct \
		--offset $((($3 + 1) * 512)) --length 512 "$2")" "4096 512"
}

# change_mode MODE OPTIONS…: sets disk.
change_mode() {
	ndctl create-namespace -f -e "$ns" -m "$@" >/tmp/errors-list-through-modes.json 2>/tmp/errors-list-through-modes.why || cat /tmp/errors-list-through-modes.why
	settle
	disk=$(jq -r .blockdev /tmp/errors-list-through-modes.json)
}

# test_modes NAME NAMESPACE
test_modes() {
	ns=$2
	disk=$(raw_disk "$ns")
	echo "add $AT 512" >"$ND/$ns/errors/list"
	check_listed "$1, raw" 0 "$((AT / 512)) 1"
	check_one_sector_bad "$1, raw" "/dev/$disk" $((AT / 512))
	echo 'start=2048' | sfdisk -q --wipe never --label dos "/dev/$disk"
	settle
	check_one_sector_bad "$1, a partition" "/dev/${disk}p1" $((AT / 512 - 2048))
	dd if=/dev/zero of="/dev/$disk" bs=4096 count=1 oflag=direct status=none
	for map in mem dev; do
		change_mode fsdax -M $map
		data=$(data_offset "$disk")
		check_listed "$1, fsdax, map=$map" "$data" "$(((AT - data) / 512)) 1"
		check_one_sector_bad "$1, fsdax, map=$map" "/dev/$disk" $(((AT - data) / 512))
	done
	change_mode sector -l 512
	device=$ND/$(device_of_disk "$disk")
	is "$1, sector" "$(cut -d ' ' -f 1,2 "$device/errors/list"), $(cat "$ND/$ns/../badblocks")" "$AT 512, $((AT / 512)) 1"
	check_fails "$1, sector: a read of all" pmem-io pread --direct --offset 7M --length 2M "/dev/$disk"
	change_mode raw
	check_listed "$1, raw again" 0 "$((AT / 512)) 1"
	echo "drop $AT 512" >"$ND/$ns/errors/list"
	becomes "$1, dropped" '' cat "$ND/$ns/errors/list" "/sys/block/$disk/badblocks" "$ND/$ns/../badblocks"
}

[ "$DRIVER" = rust_pmem ] || skip_all "C forgets what was written to a list when the mode changes"
need sfdisk jq
plan 45
load_driver
test_modes NFIT "$(nfit_ns)"
test_modes e820 "$(e820_ns)"
test_modes virtio-pmem "$(virtio_ns)"
