#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Namespaces of one NVDIMM have separate memory, and destroying or disabling one leaves the others intact.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# add_namespace ARGUMENTS: makes a namespace; prints the name of its disk.
add_namespace() {
	make_namespace -r "$(labelled_region)" "$@" | jq -r .blockdev
}

plan 12
load_driver
one=$(labelled_disk -m fsdax -M mem -s 32M)
two=$(add_namespace -m raw -s 32M)
three=$(add_namespace -m sector -s 32M -l 4096)
for disk in "$one" "$two" "$three"; do
	pmem-io fill --direct --length 16M --seed "$(cksum <"/sys/block/$disk/dev" | cut -c 1-4)" "/dev/$disk"
done
is "three disks" "$(cat "/sys/block/$one/device/devtype" "/sys/block/$two/device/devtype" "/sys/block/$three/device/devtype" | sort | tr '\n' ' ')" \
	"$(printf 'nd_btt nd_namespace_pmem nd_pfn ')"

# check_data NAME DISK
check_data() {
	check "$1" pmem-io verify --direct --length 16M --seed "$(cksum <"/sys/block/$2/dev" | cut -c 1-4)" "/dev/$2"
}
check_data "the first has its data" "$one"
check_data "the second, too" "$two"
check_data "and the third" "$three"
namespace=$(basename "$(readlink "/sys/block/$two/device")")
check "the second is disabled" ndctl disable-namespace "$namespace"
check_data "the first, still" "$one"
check_data "the third, still" "$three"
check "the second is enabled" ndctl enable-namespace "$namespace"
settle
check_data "and has its data" "$two"
check "the second is destroyed" ndctl destroy-namespace -f "$namespace"
check_data "the first, without the second" "$one"
check_data "the third, without the second" "$three"
