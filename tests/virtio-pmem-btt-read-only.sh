#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# virtio-pmem in sector mode is read-only with a log message that says why: nd_btt cannot wait for the host.
# quick
# vm: three
. "$(dirname "$0")/lib/test.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "with C a write crashes the kernel"
cleanup() {
	make_namespace -e "$(virtio_ns)" -m raw >/dev/null
	wipefs -q -a "/dev/$(disk_of "$(virtio_ns)")"
}

plan 5
load_driver
dmesg -C
disk=$(make_namespace -e "$(virtio_ns)" -m sector -l 4096 | jq -r .blockdev)
is "it is read-only" "$(cat "/sys/block/$disk/ro")" 1
check "the log says it" sh -c "dmesg | grep -q 'sector mode is read-only where a flush has to wait for the host'"
check "it is read" pmem-io pread --direct --length 4K "/dev/$disk"
echo 1 >"$ND/$(virtio_ns)/../read_only"
echo 0 >"$ND/$(virtio_ns)/../read_only"
is "it stays so when its region becomes writable" "$(cat "/sys/block/$disk/ro")" 1
check_fails "a write is refused" pmem-io pwrite --direct --length 4K "/dev/$disk"
