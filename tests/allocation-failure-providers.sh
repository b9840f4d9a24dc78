#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bind of each provider's memory in which any one allocation fails gives an errno and no disk, or succeeds, and forgets no error.
# debug
# expect-splat: vmalloc error
# expect-splat: vmemmap alloc failure
# expect-splat: arch_add_memory
# vm: --bare --nvdimm size=16M --e820 48M@512M --virtio-pmem size=16M --cxl size=256M
# timeout: 1500
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need_faults
# The kernel does not look whether it gets memory for page tables of the direct map (phys_pud_init), with any driver.
spare_allocations_in alloc_low_pages
# check_each NAMESPACE…: 4 rows each.
check_each() {
	disks=
	for namespace; do
		disks="$disks $(disk_of "$namespace")"
		echo "add 65536 4096" >"$ND/$namespace/errors/list"
		echo "$namespace" >"$UNBIND"
	done
	for disk in $disks; do
		check_bind "$1" "$1" "$disk"
		is "$1: the error is listed" "$(cat "$ND/$1/errors/list")" "65536 4096 log"
		echo "drop 0 $(cat "$ND/$1/size")" >"$ND/$1/errors/list"
		echo "$1" >"$UNBIND"
		shift
	done
}

# make_raw PROVIDER: makes a namespace with a label.
make_raw() {
	ndctl create-namespace -r "$(region_of "$1")" -m raw -s 16M >/dev/null
	settle
}

plan 20
modprobe nfit
load_driver
nfit=$(nfit_ns)
virtio=$(virtio_ns)
check_each "$nfit" "$(e820_ns)" "$virtio"
ndctl disable-region "$(region_of e820)" >/dev/null 2>&1
rmmod nd_e820
bind_ramdax
make_cxl_region 256M 5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a11 >/dev/null
fresh_labels
make_raw ramdax
make_raw CXL
# No other disk than theirs.
for namespace in "$nfit" "$virtio"; do
	echo "$namespace" >"$UNBIND"
done
check_each "$(ramdax_ns)" "$(cxl_ns)"
