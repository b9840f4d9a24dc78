#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check in a DAX file on memory without NFIT affects one page, and a write or reuse of the page repairs it.
#
# It does not matter whether a mapping had touched the page.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M --cxl size=256M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# inject_mce PAGE: injects a machine check, and waits until it is listed.
inject_mce() {
	address=$(pmem-io phys $MNT/file --offset "$(($1 * 4096))")
	pmem-io poll "/sys/block/$disk/badblocks" --run "host mce $((address))" >/tmp/badblocks
}

# check_all_good NAME: the file is intact, and nothing is listed.
check_all_good() {
	check "$1: all of the file is there" pmem-io verify $MNT/file
	check "$1: in a mapping as well" pmem-io map-verify $MNT/file
	becomes "$1: nothing is listed" '' cat "/sys/block/$disk/badblocks" "$ND/$namespace/../badblocks"
}

# check_one_page_bad NAME PAGE
check_one_page_bad() {
	is "$1: a page is listed" "$(sed 's/.* //' /tmp/badblocks)" 8
	check "$1: a read over it gives nothing of it" reads_up_to $(($2 * 4096)) $MNT/file
	is "$1: a mapping loses it alone" "$(pmem-io map-read $MNT/file)" \
		"page $2 code 4 lsb 12 address $(printf '%#x' $(($2 * 4096)))"
	check_fails "$1: 100 bytes in it" pmem-io pwrite $MNT/file --offset $(($2 * 4096 + 100)) --length 100
}

# test_repairs PROVIDER NAMESPACE
test_repairs() {
	namespace=$2
	disk=$(disk_of "$namespace")
	make_fs ext4 "$disk" -O ^has_journal
	mount_dax "$disk"
	fallocate -l 4M $MNT/file
	pmem-io map-write $MNT/file
	inject_mce 100
	check_one_page_bad "$1, touched" 100
	check "$1, touched: a page is written" write_over $MNT/file 400K
	check_all_good "$1, touched"

	umount $MNT
	mount_dax "$disk"
	address=$(($(pmem-io phys $MNT/file --offset 804K) - 4096))
	umount $MNT
	mount_dax "$disk"
	pmem-io poll "/sys/block/$disk/badblocks" --run "host mce $address" >/tmp/badblocks
	check_one_page_bad "$1, untouched" 200
	fallocate -p -o 800K -l 4K $MNT/file
	check "$1, untouched: punched out and used again" write_over $MNT/file 800K
	check_all_good "$1, untouched"
	umount $MNT
}

[ "$DRIVER" = rust_pmem ] || skip_all "C lists machine checks on memory of the NFIT alone"
need cxl ndctl

plan 49
load_driver
test_repairs e820 "$(e820_ns)"
test_repairs virtio-pmem "$(virtio_ns)"
check "a CXL region is made" make_cxl_region 256M 5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a11
fresh_labels
ndctl create-namespace -r "$(region_of CXL)" -s 64M -m fsdax -M mem >/dev/null
settle
# The bus has commands, though none that clears poison, so that overwriting does not heal by default.
echo 1 >"/sys/block/$(disk_of "$(cxl_ns)")/errors/overwrite_heals"
test_repairs CXL "$(cxl_ns)"
