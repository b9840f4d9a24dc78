#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bind or unbind of memory of ramdax or CXL in which any one allocation fails gives an errno and no disk, or succeeds; no error is lost.
#
# In each mode. The same holds for a change of the list of errors; a repair succeeds.
# debug
# expect-splat: vmalloc error
# expect-splat: vmemmap alloc failure
# expect-splat: at arch_add_memory+
# vm: cxl
# timeout: 3600
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need_faults

# The other memory of the machine would have disks.
load_providers() {
	modprobe libnvdimm
}

cleanup() {
	provider_cleanup
	modprobe -r device_dax dax_pmem
	remove_cxl_regions
	echo e820_pmem >/sys/bus/platform/drivers/ramdax/unbind
	echo >/sys/bus/platform/devices/e820_pmem/driver_override
	# What the last namespace has left would make the e820 memory one in sector mode.
	modprobe nd_e820
	load_driver
	raw_disk "$(e820_ns)" >/dev/null
	unload_driver
}

plan 63
! driver_loaded || unload_driver
# An enabled region pins the module of its bus.
disable_regions
for module in nd_e820 virtio_pmem nfit; do
	[ ! -d "/sys/module/$module" ] || rmmod "$module"
done
remove_cxl_regions
load_driver
bind_ramdax
make_cxl_region 256M 5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a11 >/dev/null
fresh_labels
for provider in ramdax CXL; do
	ndctl create-namespace -r "$(region_of $provider)" -m raw -s 32M >/dev/null
done
# memremap_pages() does not notice that KASAN gets no memory for its page tables (patches/0012). CXL memory is far away from other
# memory. A namespace that stays in use keeps the tables.
modprobe device_dax
ndctl create-namespace -r "$(region_of CXL)" -m devdax -M mem -s 16M >/dev/null
settle
check "a device DAX has struct pages there" sh -c 'test -c /dev/dax*'
check_provider "$(ramdax_ns)" "$(cxl_ns)"
