#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check in an NVDIMM lists the failed block, wakes pollers, and makes only that block unreadable.
# vm: --bare --nvdimm size=96M --cpus 2
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	unload_driver
}

need pmem-io
plan 5
load_driver
disk=$(disk_of "$(nfit_ns)")
start=$(cat "$ND/$(nfit_region)/resource")
is "poll sees it" "$(pmem-io poll "/sys/block/$disk/badblocks" --run "host mce $((start + (60 << 20)))")" "122880 8"
check_fails "a read of it" pmem-io pread "/dev/$disk" --direct --offset 60M --length 4K
check "a read before it" pmem-io pread "/dev/$disk" --direct --offset 59M --length 1M
check "a read behind it" pmem-io pread "/dev/$disk" --direct --offset 61444K --length 1M
# QEMU's NVDIMMs have no clear-error command.
check_fails "a write of it, which can't repair it" pmem-io pwrite "/dev/$disk" --direct --offset 60M --length 4K
