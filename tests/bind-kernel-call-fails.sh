#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bind in which a function of the kernel fails gives an errno and no disk, or does without, and the next bind succeeds.
# compare
# vm: provider
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/rows.sh"

# show_bind: binds the device, and prints the error, or the disk, its list of bad blocks and the result of a read at a bad sector;
# unbinds it.
show_bind() {
	error=$(bind_error "$device")
	if bound=$(disk_of "$device"); then
		[ -z "$bad" ] || bound="$bound, $(badblocks_of "$bound"), $(errno_of read_sectors "$bound" "$bad" 8)"
	else
		bound="no disk"
	fi
	echo "${error:-ok}, $bound"
	[ -n "$error" ] || echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
}

# test_calls NAME DEVICE FUNCTION=VALUE…: each of the functions returns this value. The disk may have one error; a disk in sector
# mode lists none.
test_calls() {
	name=$1 device=$2
	shift 2
	disk=$(disk_of "$device")
	bad=$(cut -d ' ' -f 1 "/sys/block/$disk/badblocks" 2>/dev/null) || :
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	for call; do
		provider fail "${call%=*} ${call#*=}"
		shown=$(show_bind)
		# A driver need not call it.
		[ "$(provider fail)" != 0 ] || shown="not called"
		provider fail ""
		next=$(show_bind)
		# An empty row fails: an error with a disk, or none without one. C makes a raw disk of a namespace of another mode.
		case $DRIVER:$call:$shown in
		nd_pmem:* | *:"not called") ;;
		*:nd_*_probe=*:ok* | *:"ok, no disk") shown= ;;
		*:"ok, "* | *", no disk") ;;
		*) shown= ;;
		esac
		case $DRIVER:$next in
		nd_pmem:* | *:"ok, pmem"*) ;;
		*) next= ;;
		esac
		add_row "$name: $call" "$shown"
		add_row "$name: $call: the next bind" "$next"
	done
	add_row "$name: bound" "$(bind_error "$device") $(read_sectors "$disk" 0 8 | md5sum)"
}

provide size=$((16 << 20))
rmmod "$DRIVER"
provider fail "__nd_driver_register -12"
add_row "load" "$(load_driver 2>&1 | tail -n 1 | sed 's/.*: //')"
provider fail ""
provider_cleanup

claims="devm_namespace_enable=-12 nvdimm_namespace_common_probe=-19 __request_region=0"
disks="badblocks_init=-12 alloc_workqueue_noprof=0 __blk_alloc_disk=-12 alloc_dax=-12 alloc_dax=-95 dax_add_host=-12
	device_add_disk=-12 nvdimm_has_flush=-6 kernfs_find_and_get_ns=0 badblocks_set=0"
# shellcheck disable=SC2086 # several functions
{
	provide size=$((16 << 20)) bad=1M+4K
	test_calls "with struct pages" "$NAMESPACE" $claims nd_btt_probe=-12 nd_pfn_probe=-12 nd_dax_probe=-12 memremap_pages=-12 $disks
	provider_cleanup
	provide size=$((16 << 20)) pages=0 bad=1M+4K
	test_calls "without struct pages" "$NAMESPACE" memremap=0 $disks
	provider_cleanup
	provide size=$((32 << 20)) bad=20M+4K
	DISK=$(make_namespace -e "$NAMESPACE" -m fsdax | jq -r .blockdev)
	test_calls "fsdax" "$(device_of_disk "$DISK")" $claims nvdimm_setup_pfn=-12 memremap_pages=-12 $disks
	provider_cleanup
	provide size=$((32 << 20))
	DISK=$(make_namespace -e "$NAMESPACE" -m sector | jq -r .blockdev)
	test_calls "sector" "$(device_of_disk "$DISK")" $claims nvdimm_namespace_attach_btt=-12 __blk_alloc_disk=-12 device_add_disk=-12
	provider_cleanup
	provide size=$((16 << 20)) flush_async=1
	test_calls "with asynchronous flushes" "$NAMESPACE" register_pm_notifier=-12
	provider_cleanup
}
if [ "$DRIVER" = rust_pmem ]; then
	provide size=$((16 << 20))
	rmmod rust_pmem
	insmod "$MODULE" inject=1
	settle
	test_calls "inject=1" "$NAMESPACE" debugfs_create_file_full=-12
	poison=/sys/kernel/debug/rust_pmem/$NAMESPACE
	list=$ND/$NAMESPACE/errors/list
	# arm64 has no such function.
	if grep -q ' set_mce_nospec$' /proc/kallsyms; then
		provider fail "set_mce_nospec -12"
		add_row "inject=1: poison, set_mce_nospec=-12" "$(errno_of sh -c "echo poison 65536 4096 >$poison"), called $(provider fail) times"
		provider fail ""
		add_row "inject=1: what is listed then, and can be read" "$(paste -sd + "$list"), $(read_sectors "$DISK" 128 8 2>/dev/null | wc -c) bytes"
	fi
	add_row "inject=1: poison" "$(errno_of sh -c "echo poison 65536 4096 >$poison"), $(cut -d ' ' -f 1,2 "$list")"
	# The page would stay unmapped for the tests that follow.
	echo "drop 65536 4096" >"$list"
	provider_cleanup
fi
report_rows
