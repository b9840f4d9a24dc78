#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# One error, on each provider, right through the modes of its namespace: at its place on the exact list, on the disk's (from where the data begins), in a partition, and for who reads; until it is dropped.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
# timeout: 300
. "$(dirname "$0")/lib/test.sh"

AT=$(((8 << 20) + 4096))

# listed WHERE DATA SECTOR: what disk, region and exact list have; the data begins at this offset of the namespace.
listed() {
	owner=$ND/$(device_of_disk "$disk")
	is "$1" "$(cut -d ' ' -f 1,2 "$owner/errors/list"), $(cat "/sys/block/$disk/badblocks"), $(cat "$ND/$ns/../badblocks")" \
		"$AT 512, $3, $((AT / 512)) 1"
}

# data_of DISK: the offset of its data in the namespace.
data_of() {
	data_owner=$(readlink -f "/sys/block/$1/device")
	echo $(($(cat "$data_owner/resource") - $(cat "$ND/$ns/resource")))
}

# lost NAME DEVICE SECTOR: it can't be read, its neighbours can.
lost() {
	check_fails "$1: a read of it" pmem-io pread --direct --offset $(($3 * 512)) --length 512 "$2"
	is "$1: reads beside it" "$(pmem-io pread --direct --offset $((($3 - 8) * 512)) --length 4096 "$2") $(pmem-io pread --direct \
		--offset $((($3 + 1) * 512)) --length 512 "$2")" "4096 512"
}

# becomes MODE OPTIONS…: the disk then.
becomes() {
	ndctl create-namespace -f -e "$ns" -m "$@" >/tmp/errors-list-through-modes.json 2>/tmp/errors-list-through-modes.why || cat /tmp/errors-list-through-modes.why
	settle
	disk=$(jq -r .blockdev /tmp/errors-list-through-modes.json)
}

# through NAME NAMESPACE
through() {
	ns=$2
	disk=$(disk_of "$ns")
	echo "add $AT 512" >"$ND/$ns/errors/list"
	listed "$1, raw" 0 "$((AT / 512)) 1"
	lost "$1, raw" "/dev/$disk" $((AT / 512))
	echo 'start=2048' | sfdisk -q --wipe never --label dos "/dev/$disk"
	settle
	lost "$1, a partition" "/dev/${disk}p1" $((AT / 512 - 2048))
	dd if=/dev/zero of="/dev/$disk" bs=4096 count=1 oflag=direct status=none
	for map in mem dev; do
		becomes fsdax -M $map
		data=$(data_of "$disk")
		listed "$1, fsdax, map=$map" "$data" "$(((AT - data) / 512)) 1"
		lost "$1, fsdax, map=$map" "/dev/$disk" $(((AT - data) / 512))
	done
	becomes sector -l 512
	owner=$ND/$(device_of_disk "$disk")
	is "$1, sector" "$(cut -d ' ' -f 1,2 "$owner/errors/list"), $(cat "$ND/$ns/../badblocks")" "$AT 512, $((AT / 512)) 1"
	check_fails "$1, sector: a read of all" pmem-io pread --direct --offset 7M --length 2M "/dev/$disk"
	becomes raw
	listed "$1, raw again" 0 "$((AT / 512)) 1"
	echo "drop $AT 512" >"$ND/$ns/errors/list"
	is "$1, dropped" "$(cat "$ND/$ns/errors/list" "/sys/block/$disk/badblocks" "$ND/$ns/../badblocks")" ''
}

[ "$DRIVER" = rust_pmem ] || skip_all "C forgets what was written to a list when the mode changes"
need sfdisk jq
plan 45
load_driver
through NFIT "$(nfit_ns)"
through e820 "$(e820_ns)"
through virtio-pmem "$(virtio_ns)"
