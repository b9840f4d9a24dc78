#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Regions of odd size or start, shrunk below their info block, or with a claimed hole bind or fail as recorded.
# kernel: device_dax
# compare
# vm: provider
# timeout: 300
# expect-splat: at nsio_rw_bytes+
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"
. "$(dirname "$0")/lib/provider.sh"

kernel_messages() {
	dmesg -t | sed -n '/pmem_provider\|rust_pmem-vm\|: loading\|taint\|unable to guarantee/d; /namespace0\|pfn0\|dax0\|btt0/p' |
		mask_numbers | sed 's/\(pfn\|btt\|dax\)N\.[0-9]*/\1N.N/g' | sort -u | paste -sd ' '
}

# test_region NAME PARAMETER OF THE PROVIDER…
test_region() {
	name=$1
	shift
	dmesg -C
	provide "$@" 2>/dev/null || :
	if [ ! -d /sys/module/pmem_provider ]; then
		add_row "$name" "no region can be made"
		provider_cleanup
		return
	fi
	add_row "$name" "${DISK:+$(cat "/sys/block/$DISK/size") sectors, the last one $(pmem-io pread --direct "/dev/$DISK" --offset \
		$(($(blockdev --getsize64 "/dev/$DISK") - 512)) --length 512 2>&1)} $(bind_error "$NAMESPACE") $(kernel_messages)"
	provider_cleanup
}

for pages in 0 1; do
	test_region "pages=$pages: as it should be" pages=$pages
	test_region "pages=$pages: no sector" size=256 pages=$pages
	test_region "pages=$pages: a sector" size=512 pages=$pages
	test_region "pages=$pages: a page less a sector" size=3584 pages=$pages
	test_region "pages=$pages: a page" size=4096 pages=$pages
	test_region "pages=$pages: a page and a sector" size=4608 pages=$pages
	test_region "pages=$pages: 8M and a sector" size=$(((8 << 20) + 512)) pages=$pages
	test_region "pages=$pages: 8M and a byte" size=$(((8 << 20) + 1)) pages=$pages
	test_region "pages=$pages: 15M" size=$((15 << 20)) pages=$pages
	test_region "pages=$pages: from a sector on" start=$((MEMORY + 512)) size=$((8 << 20)) pages=$pages
	test_region "pages=$pages: from a page on" start=$((MEMORY + 4096)) size=$((8 << 20)) pages=$pages
	test_region "pages=$pages: without a DIMM, 3 regions of odd size" size=$((10 << 20)) nr_regions=3 dimm=0 pages=$pages
done

# Made in one size, then found in less memory, or in more.
for mode in "fsdax -M mem" "fsdax -M dev" sector devdax; do
	# Sector mode does not support asynchronous flushes.
	dimm=1
	[ "$mode" != sector ] || dimm=0
	provide size=$((64 << 20)) dimm=$dimm
	# shellcheck disable=SC2086 # two words
	make_namespace -e "$NAMESPACE" -m $mode >/dev/null 2>&1
	provider_cleanup
	for size in 62 32 16 2 1 96; do
		test_region "$mode of 64M, in ${size}M" keep=1 dimm=$dimm size=$((size << 20))
	done
	test_region "$mode of 64M, in 64M less a page" keep=1 dimm=$dimm size=$(((64 << 20) - 4096))
	test_region "$mode of 64M, whole again" keep=1 dimm=$dimm size=$((64 << 20))
done

# A hole.
provide size=$((64 << 20))
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
provider claim 32M
dmesg -C
add_row "a hole in the middle" "$(bind_error "$NAMESPACE") $(kernel_messages)"
add_row "a hole in the middle: fsdax" "$(make_fsdax "$NAMESPACE" mem 2>/dev/null || echo "not made")"
add_row "a hole in the middle: sector" "$(make_namespace -e "$NAMESPACE" -m sector >/dev/null 2>&1 && disk_of "$NAMESPACE" || echo "not made")"
provider claim ""
provider_cleanup
test_region "the hole is filled" size=$((64 << 20))
report_rows
