#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl errors import-cxl lists the poison of a CXL device at its place in each region, and a reboot restores it.
#
# With --follow, it lists the errors that the devices report. They have forgotten the poison after the reboot.
# vm: cxl
# timeout: 400
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	[ -z "${follower:-}" ] || kill "$follower"
	[ "$STAGE" = 1 ] || umount $STATE 2>/dev/null
	unload_driver
	remove_cxl_regions
}

# lists_sector DISK SECTOR: its badblocks has the sector, alone.
lists_sector() {
	grep -qx "$2 1" "/sys/block/$1/badblocks"
}

# takes_reports: the kernel takes what CXL devices report. Without PCIe AER it leaves that to the firmware.
takes_reports() {
	kernel_has pcie_aer_is_native
}

need cxl ndctl

# make_regions: two regions, each of half the device.
make_regions() {
	make_cxl_region 256M 5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a11 && make_cxl_region 256M 5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a12
}

# disk_at DPA: the disk of the region that begins at this device physical address.
disk_at() {
	for at_region in "$ND"/region*; do
		[ -e "$at_region/mapping0" ] || continue
		read -r at_mapping <"$at_region/mapping0"
		case $at_mapping in
		nmem*,"$1",268435456,0)
			for at_namespace in $(namespaces CXL); do
				[ "${at_namespace%.*}" != "namespace${at_region##*region}" ] || disk_of "$at_namespace"
			done
			;;
		esac
	done
}

if [ "$STAGE" -eq 1 ]; then
	! driver_loaded || unload_driver
	remove_cxl_regions
fi
load_driver
mount_state_dir "$(disk_of "$(nfit_ns)")"

case $STAGE in
1)
	plan 19
	check "regions are made" make_regions
	ndctl disable-region -b CXL all >/dev/null 2>&1
	ndctl init-labels -f -b CXL all >/dev/null 2>&1
	ndctl enable-region -b CXL all >/dev/null 2>&1
	settle
	for region in $(ndctl list -R -b CXL | jq -r '.[].dev'); do
		make_namespace -r "$region" -m raw -s 64M >/dev/null
	done
	first=$(disk_at 0)
	second=$(disk_at 268435456)
	for address in 0x100040 0x1000c0 $((268435456 + 0x200040)); do
		echo "$address" >/sys/kernel/debug/cxl/mem0/inject_poison
	done
	is "the device knows three" "$(cxl list -m mem0 --media-errors | jq '.[0].media_errors | length')" 3
	is_empty "the kernel lists nothing" cat "/sys/block/$first/badblocks" "/sys/block/$second/badblocks"
	pmemctl errors import-cxl --all --json >/tmp/sync.json
	check_schema "errors import-cxl" /tmp/sync.json
	is "added to each" "$(jq -r '.reports[] | "\(.result) \(.added_sectors)"' /tmp/sync.json | xargs)" "added 1 added 1"
	is "in the first region" "$(cat "/sys/block/$first/badblocks")" '2048 1'
	is "in the second" "$(cat "/sys/block/$second/badblocks")" '4096 1'
	check_fails "it can't be read" pmem-io pread --direct --offset 1M --length 512 "/dev/$first"
	check "what is before it can" pmem-io pread --direct --offset 1048064 --length 512 "/dev/$first"
	is "once more: there already" "$(pmemctl errors import-cxl "$first" --json | jq -r '.reports[].result')" there-already
	check_fails "other memory is refused" pmemctl errors import-cxl "$(disk_of "$(nfit_ns)")"
	pmemctl errors import-cxl --follow --all >/tmp/follow &
	follower=$!
	check "it follows: all is there already" wait_for 40 sh -c "[ \$(grep -c 'there already' /tmp/follow) = 2 ]"
	check_fails "a second one is refused" timeout 20 pmemctl errors import-cxl --follow --all
	echo 0x300040 >/sys/kernel/debug/cxl/mem0/inject_poison
	check "it follows: injected poison" wait_for 40 lists_sector "$first" 6144
	followed=1
	if takes_reports; then
		check "a device reports an error" host cxl-media-error memory $((268435456 + 0x400080))
		check "it follows: the error" wait_for 40 lists_sector "$second" 8192
		followed=2
	else
		skip "a device reports an error" "this kernel has no PCIe AER"
		skip "it follows: the error" "this kernel has no PCIe AER"
	fi
	check "a line for each" wait_for 40 sh -c "[ \$(grep -c '1 added' /tmp/follow) = $followed ]"
	kill "$follower"
	wait "$follower" || :
	follower=
	check_fails "nothing is traced after its end" [ -e /sys/kernel/tracing/instances/pmemctl-cxl ]
	check "saved" pmemctl errors save --all
	sync
	host reboot
	;;
2)
	plan 4
	check "the regions are made again" make_regions
	settle
	first=$(disk_at 0)
	second=$(disk_at 268435456)
	is "the device knows nothing" "$(cxl list -m mem0 --media-errors | jq '.[0].media_errors | length')" 0
	restored="restored 2 restored 1" listed="2048 1 6144 1 4096 1"
	if takes_reports; then
		restored="restored 2 restored 2" listed="$listed 8192 1"
	fi
	is "restored" "$(restore "$first" "$second" | cut -d ' ' -f 2- | xargs)" "$restored"
	is "listed" "$(cat "/sys/block/$first/badblocks" "/sys/block/$second/badblocks" | xargs)" "$listed"
	;;
esac
