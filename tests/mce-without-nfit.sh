#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check on memory without NFIT (e820, virtio-pmem, CXL) is listed until the whole page is written and verified.
#
# In a DAX file it affects one page, which a write or its reuse repairs, whether a mapping had touched it or not.
# quick
# vm: cxl
# timeout: 180
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	unload_driver
	remove_cxl_regions
}

# check_lists NAME SECTORS: badblocks of the disk and of the region.
check_lists() {
	prints "$1: badblocks of the disk" "$2" cat "/sys/block/$disk/badblocks"
	becomes "$1: badblocks of the region" "$2" cat "$ND/$namespace/../badblocks"
}

# test_mce PROVIDER NAMESPACE
test_mce() {
	namespace=$2
	disk=$(raw_disk "$namespace")
	pmem-io fill --direct --offset 1M --length 12K --seed 1 "/dev/$disk"
	phys=$(($(cat "$ND/$namespace/resource") + 1048576 + 4096))

	is "$1: who polls is woken" "$(pmem-io poll "/sys/block/$disk/badblocks" --run "host mce $phys 6")" '2056 8'
	check_lists "$1" '2056 8'
	check_fails "$1: a read of the page fails" pmem-io pread --direct --offset 1052672 --length 512 "/dev/$disk"
	check "$1: the page before it is there" pmem-io verify --direct --offset 1M --length 4K --seed 1 "/dev/$disk"
	check_fails "$1: a write of a part of it fails" pmem-io pwrite --direct --offset 1052672 --length 512 --seed 2 "/dev/$disk"
	check "$1: unbound and bound" rebind "$namespace"
	disk=$(disk_of "$namespace")
	check_lists "$1, bound again" '2056 8'
	check "$1: all of it is written" pmem-io fill --direct --offset 1052672 --length 4K --seed 2 "/dev/$disk"
	check "$1: and is there" pmem-io verify --direct --offset 1052672 --length 4K --seed 2 "/dev/$disk"
	check_lists "$1, written" ''
	check "$1: unbound and bound again" rebind "$namespace"
	disk=$(disk_of "$namespace")
	check_lists "$1, written and bound again" ''
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
plan 82
! driver_loaded || unload_driver
remove_cxl_regions
load_driver
test_mce e820 "$(e820_ns)"
test_repairs e820 "$(e820_ns)"
test_mce virtio-pmem "$(virtio_ns)"
test_repairs virtio-pmem "$(virtio_ns)"

namespace=$(e820_ns)
disk=$(make_namespace -e "$namespace" -m sector -l 4096 | jq -r .blockdev)
host mce $(($(cat "$ND/$namespace/resource") + (8 << 20)))
check "sector mode: it is listed" wait_for 60 grep -q "^$((8 << 20)) 4096 machine-check" "/sys/block/$disk/device/errors/list"
echo "drop 0 $(cat "$ND/$namespace/size")" >"/sys/block/$disk/device/errors/list"
make_namespace -e "$namespace" -m raw >/dev/null

check "a CXL region is made" make_cxl_region 256M 5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a11
fresh_labels
ndctl create-namespace -r "$(region_of CXL)" -s 64M -m fsdax -M mem >/dev/null
settle
# The bus has commands, though none that clears poison, so that overwriting does not heal by default.
echo 1 >"/sys/block/$(disk_of "$(cxl_ns)")/errors/overwrite_heals"
test_repairs CXL "$(cxl_ns)"
