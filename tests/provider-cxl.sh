#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# CXL memory supports raw, fsdax and sector namespaces and MAP_SYNC, and comes back with its data after a reboot.
# compare
# vm: cxl
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider-rows.sh"

UUID=5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a11
# Each access goes through the emulated device.
BYTES=256K
FILE=256K

cleanup() {
	umount $MNT 2>/dev/null
	unload_driver
	remove_cxl_regions
}

need cxl ndctl

# make_one ARGUMENTS OF ndctl create-namespace…: makes a namespace of 64 MiB; sets disk.
make_one() {
	ndctl create-namespace -r "$region" -s 64M "$@" >/tmp/provider-cxl.json
	settle
	record "$*: ndctl's answer" "$(jq -r '"\(.dev) \(.mode) \(.map) \(.size) \(.blockdev) \(.align) \(.sector_size)"' /tmp/provider-cxl.json)"
	disk=$(jq -r .blockdev /tmp/provider-cxl.json)
}

if [ "$STAGE" -eq 1 ]; then
	plan 25
	! driver_loaded || unload_driver
	remove_cxl_regions
	load_driver
	check "a region is made" make_cxl_region 256M $UUID
	region=$(region_of CXL)
	IFS=, read -r dimm _ <"$ND/$region/mapping0"
	record "CXL: dimm" "$(cat "$ND/$dimm/devtype" "$ND/$dimm/commands" | xargs)"
	ndctl disable-region -b CXL all >/dev/null 2>&1
	check "its labels are made empty" ndctl init-labels -f -b CXL all
	ndctl enable-region -b CXL all >/dev/null 2>&1
	settle
	make_one -m fsdax -M mem
	record_bus CXL "$(cxl_ns)"
	record_disk "CXL, fsdax" "$disk"
	check_files "CXL, fsdax" "$disk"
	check_file_after_reload "CXL, fsdax" "$disk"
	make_one -m raw
	record_disk "CXL, raw" "$disk"
	check_data "CXL, raw" "$disk"
	make_one -m sector
	record_disk "CXL, sector" "$disk"
	check_data "CXL, sector" "$disk"
	record "nodes" "$(cd /dev && echo pmem*)"
	host reboot
else
	plan 8
	load_driver
	others=$(cd /dev && echo pmem*)
	check "the region is made again" make_cxl_region 256M $UUID
	wait_for 30 are_namespaces CXL 3
	settle
	record "nodes" "$(cd /dev && echo pmem*)"
	record "namespaces" "$(ndctl list -N -b CXL | jq -r 'sort_by(.dev)[] | "\(.dev) \(.mode) \(.map) \(.size) \(.blockdev)"')"
	disk=$(ndctl list -N -b CXL | jq -r '.[] | select(.mode == "fsdax").blockdev')
	check "fsdax: mounted" mount_dax "$disk"
	check "fsdax: its file" pmem-io map-verify --sync $MNT/file --seed 8
	umount $MNT
	check "raw: its data" pmem-io verify --direct --length $BYTES "/dev/$(ndctl list -N -b CXL | jq -r '.[] | select(.mode == "raw").blockdev')" --seed 7
	check "sector: its data" pmem-io verify --direct --length $BYTES "/dev/$(ndctl list -N -b CXL | jq -r '.[] | select(.mode == "sector").blockdev')" --seed 7
	ndctl destroy-namespace -f -b CXL all >/dev/null 2>&1
	is "all are destroyed: nodes" "$(cd /dev && echo pmem*)" "$others"
fi
