#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# NVDIMM and e820 memory have the recorded sysfs attributes, work in each mode, and keep their data.
# compare
# kernel: device_dax
# vm: three
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider-rows.sh"

cleanup() {
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
	for namespace in "$(nfit_ns)" "$(e820_ns)"; do
		raw_disk "$namespace" >/dev/null
	done
}

plan 90
load_driver_anew
for namespace in "$(nfit_ns)" "$(e820_ns)"; do
	raw_disk "$namespace" >/dev/null
done
modprobe device_dax
check_provider NVDIMM "$(nfit_ns)"
check_sector_mode NVDIMM "$(nfit_ns)"
check_provider e820 "$(e820_ns)"
check_sector_mode e820 "$(e820_ns)"
