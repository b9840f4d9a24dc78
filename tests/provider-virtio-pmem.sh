#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# virtio-pmem has the recorded sysfs attributes, works in each mode, and keeps its data; sector mode is read-only.
#
# To write in sector mode, nd_btt would have to wait for the host with a spinlock held.
# compare
# kernel: device_dax
# vm: three
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider-rows.sh"

cleanup() {
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
	release_dax_devices
	raw_disk "$namespace" >/dev/null
}

# Without other memory: nd_pmem would grant MAP_SYNC after that was unbound (patches/0003).
load_providers() {
	modprobe virtio_pmem
}

need dmsetup
plan 44
remove_providers
hold_freed_dax_devices
load_driver
modprobe device_dax
namespace=$(virtio_ns)
raw_disk "$namespace" >/dev/null
check_provider virtio-pmem "$namespace"
change_mode virtio-pmem "$namespace" sector
record "sector: read-only" "$(cat "/sys/block/$disk/ro")"
record_result "sector: read" pmem-io pread --direct --length 4096 "/dev/$disk"
if [ "$DRIVER" = nd_pmem ]; then
	skip "sector: written" "C oopses: scheduling while atomic"
else
	check_fails "sector: written" pmem-io pwrite --direct --length 4096 "/dev/$disk"
fi
echo 1 >"$ND/$namespace/../read_only"
is "sector: read-only, as its region" "$(cat "/sys/block/$disk/ro")" 1
echo 0 >"$ND/$namespace/../read_only"
record "sector: read-only, when its region is no more" "$(cat "/sys/block/$disk/ro")"
change_mode "virtio-pmem after sector" "$namespace" raw
check_data "raw after sector" "$disk"
