#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Namespaces side by side on one NVDIMM: each has its own memory, and one that is destroyed or disabled takes nothing along.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# added ARGUMENTS: one more, the name of its disk.
added() {
	make_namespace -r "$(labelled_region)" "$@" | jq -r .blockdev
}

plan 12
load_driver
one=$(labelled_disk -m fsdax -M mem -s 32M)
two=$(added -m raw -s 32M)
three=$(added -m sector -s 32M -l 4096)
for disk in "$one" "$two" "$three"; do
	pmem-io fill --direct --length 16M --seed "$(cksum <"/sys/block/$disk/dev" | cut -c 1-4)" "/dev/$disk"
done
is "three disks" "$(cat "/sys/block/$one/device/devtype" "/sys/block/$two/device/devtype" "/sys/block/$three/device/devtype" | sort | tr '\n' ' ')" \
	"$(printf 'nd_btt nd_namespace_pmem nd_pfn ')"

# has NAME DISK
has() {
	check "$1" pmem-io verify --direct --length 16M --seed "$(cksum <"/sys/block/$2/dev" | cut -c 1-4)" "/dev/$2"
}
has "the first has its data" "$one"
has "the second, too" "$two"
has "and the third" "$three"
namespace=$(basename "$(readlink "/sys/block/$two/device")")
check "the second is disabled" ndctl disable-namespace "$namespace"
has "the first, still" "$one"
has "the third, still" "$three"
check "the second is enabled" ndctl enable-namespace "$namespace"
settle
has "and has its data" "$two"
check "the second is destroyed" ndctl destroy-namespace -f "$namespace"
has "the first, without the second" "$one"
has "the third, without the second" "$three"
