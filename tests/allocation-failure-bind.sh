#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bind in which any one allocation fails gives an errno and no disk, or succeeds, and never a raw disk over another mode.
# debug
# expect-splat: vmalloc error
# expect-splat: vmemmap alloc failure
# expect-splat: at arch_add_memory+
# vm: provider
# timeout: 1500
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"

cleanup() {
	echo 1 >/sys/bus/nd/drivers_autoprobe
	provider_cleanup
}

# check_claimed NAME: binds the namespace, which another device claims. Nothing else is bound meanwhile.
check_claimed() {
	echo 0 >/sys/bus/nd/drivers_autoprobe
	region=/sys/bus/nd/drivers/nd_region
	bus=$(realpath "$ND/region0/..")
	check_faults "$1 claims the namespace" "$BIND_ERRORS; none; none" "-write=$BIND=$NAMESPACE" --before "write=$region/unbind=region0" \
		--before "write=$region/bind=region0" --before "read=$bus/wait_probe" --look "/sys/block/pmem*" --look "${BIND%/*}/*0.*"
	echo 1 >/sys/bus/nd/drivers_autoprobe
}

# check_errors_in_front NAME MAP MEBIBYTES ERROR COMMANDS SHOWN FAILED BOUND: 4 rows: binds with ERROR (OFFSET+LENGTH) in front of the data,
# which is there again before each try, and one in the data. The extended regular expressions say what a failure leaves in the file SHOWN, and what a
# success leaves there and in the list. The next bind succeeds, and has the errors of one without a fault.
check_errors_in_front() {
	if [ "$DRIVER" != rust_pmem ]; then
		for row in "" ": the next bind" ": and a read" ": the data"; do
			skip "$1$row" "nd_pmem has no errors/list"
		done
		return
	fi
	faults_front=$1 faults_error=$4 faults_shown=$6 faults_failed=$7 faults_good=$8
	# With pages=1, struct pages in RAM need no info block.
	provide size=$(($3 << 20)) pages=0 dimm=0 commands="$5"
	DISK=$(make_namespace -e "$NAMESPACE" -m fsdax -M "$2" | jq -r .blockdev)
	device=$(device_of_disk "$DISK")
	bad=/sys/module/pmem_provider/parameters/bad
	list=$ND/$device/errors/list
	fill_disk "$DISK"
	echo 16M+4K >$bad
	check_bind "$faults_front" "$device" "$DISK" "; ok$faults_failed; ok; ok $faults_good" \
		"; ok $faults_good; Device or resource busy \(os error 16\); ok $faults_good" --before "write=$bad=$faults_error" \
		--then "run=cat $list 2>/dev/null; cat $faults_shown" --then "-write=$BIND=$device" \
		--then "run=cat $list $faults_shown"
	check_data "$faults_front" "$DISK"
	provider_cleanup
}

need_faults
# Without memory for a call in the background, the kernel registers the device that claims the namespace at once: its probe
# waits for the lock that the namespace's probe holds, for ever, with any driver.
spare_allocations_in async_schedule_node_domain
plan 36
for pages in 0 1; do
	provide size=$((16 << 20)) pages=$pages dimm=0
	fill_disk "$DISK"
	check_bind "raw, pages=$pages" "$NAMESPACE" "$DISK" "" ""
	check_data "raw, pages=$pages" "$DISK"
	provider_cleanup
done
for mode in fsdax sector; do
	provide size=$((32 << 20)) pages=1 dimm=0
	DISK=$(make_namespace -e "$NAMESPACE" -m $mode | jq -r .blockdev)
	device=$(device_of_disk "$DISK")
	fill_disk "$DISK"
	check_bind "$mode" "$device" "$DISK" "" ""
	check_data "$mode" "$DISK"
	# The bind makes the info block or the BTT anew.
	check_bind "$mode, new" "$device" "$DISK" "" "" \
		--before "run=dd if=/dev/zero of=/dev/mem bs=4096 seek=$INFO_BLOCK count=1 conv=notrunc status=none"
	# A new BTT has a new map.
	[ $mode = sector ] || check_data "$mode, new" "$DISK"
	# Nobody may read what a driver has claimed.
	echo "$device" >"$UNBIND"
	info_block_save /tmp/made
	check "$mode, new: it is there again" test -n "$(tr -d '\0' </tmp/made)"
	check_claimed "$mode"
	provider_cleanup
done
# More than a memory section, for which the kernel takes RAM in any case.
check_errors_in_front "fsdax, an error in its struct pages" dev 160 3M+4K 1 /sys/module/pmem_provider/parameters/bad \
	' 16777216\+4096(\+3145728\+4096)?' '16777216 4096 log\+16777216\+4096'
# libnvdimm must not see it meanwhile.
check_errors_in_front "fsdax, an error in front of the data" mem 32 1M+4K 0 "$ND/region0/badblocks" \
	'( 2048 8\+32768 8)?' '1048576 4096 log\+16777216 4096 log\+2048 8\+32768 8'
if kernel_has device_dax; then
	provide size=$((32 << 20)) pages=1 dimm=0
	make_namespace -e "$NAMESPACE" -m devdax >/dev/null
	# dax_pmem binds the device that claims it.
	check_claimed devdax
else
	skip "devdax claims the namespace" "this kernel has no device DAX"
fi
