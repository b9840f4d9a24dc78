#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bind in which any one allocation fails gives an errno and no disk, or succeeds, and never a raw disk over another mode.
# debug
# expect-splat: vmalloc error
# expect-splat: vmemmap alloc failure
# expect-splat: at arch_add_memory+
# vm: --bare --append memmap=128M$512M
# timeout: 900
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

need_faults
# Without memory for a call in the background, the kernel registers the device that claims the namespace at once: its probe
# waits for the lock that the namespace's probe holds, for ever, with any driver.
spare_allocations_in async_schedule_node_domain
plan 23
for pages in 0 1; do
	provide size=$((16 << 20)) pages=$pages dimm=0
	check_bind "raw, pages=$pages" "$NAMESPACE" "$DISK" "" ""
	provider_cleanup
done
for mode in fsdax sector; do
	provide size=$((32 << 20)) pages=1 dimm=0
	DISK=$(make_namespace -e "$NAMESPACE" -m $mode | jq -r .blockdev)
	device=$(device_of_disk "$DISK")
	check_bind "$mode" "$device" "$DISK" "" ""
	# The bind makes the info block or the BTT anew.
	check_bind "$mode, new" "$device" "$DISK" "" "" \
		--before "run=dd if=/dev/zero of=/dev/mem bs=4096 seek=$INFO_BLOCK count=1 conv=notrunc status=none"
	# Nobody may read what a driver has claimed.
	echo "$device" >"$UNBIND"
	info_block_save /tmp/made
	check "$mode, new: it is there again" test -n "$(tr -d '\0' </tmp/made)"
	check_claimed "$mode"
	provider_cleanup
done
provide size=$((32 << 20)) pages=1 dimm=0
make_namespace -e "$NAMESPACE" -m devdax >/dev/null
# dax_pmem binds the device that claims it.
check_claimed devdax
