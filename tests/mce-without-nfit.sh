#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check on memory without NFIT (e820, virtio-pmem) is listed until the whole page is written and verified.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M --cpus 2
. "$(dirname "$0")/lib/test.sh"

# check_lists NAME SECTORS: badblocks of the disk and of the region.
check_lists() {
	prints "$1: badblocks of the disk" "$2" cat "/sys/block/$disk/badblocks"
	becomes "$1: badblocks of the region" "$2" cat "$ND/$namespace/../badblocks"
}

# test_mce PROVIDER NAMESPACE
test_mce() {
	namespace=$2
	disk=$(disk_of "$namespace")
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

[ "$DRIVER" = rust_pmem ] || skip_all "C lists machine checks on memory of the NFIT alone"
plan 33
load_driver
test_mce e820 "$(e820_ns)"
test_mce virtio-pmem "$(virtio_ns)"

namespace=$(e820_ns)
disk=$(make_namespace -e "$namespace" -m sector -l 4096 | jq -r .blockdev)
host mce $(($(cat "$ND/$namespace/resource") + (8 << 20)))
check "sector mode: it is listed" wait_for 60 grep -q "^$((8 << 20)) 4096 machine-check" "/sys/block/$disk/device/errors/list"
echo "drop 0 $(cat "$ND/$namespace/size")" >"/sys/block/$disk/device/errors/list"
make_namespace -e "$namespace" -m raw >/dev/null
