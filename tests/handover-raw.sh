#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Raw memory that one driver writes is byte-identical under the other driver, in both directions.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	unload_both_drivers
}

checksums() {
	md5sum "/dev/$nfit" "/dev/$e820" | cut -d ' ' -f 1
}

need_both_drivers
plan 8
load_driver
nfit=$(plain_disk)
e820=$(e820_disk)
pmem-io fill --direct "/dev/$nfit" --offset 20M --seed 1
pmem-io fill --length 12M "/dev/$e820" --seed 2
written=$(checksums)

swap_drivers
is "the disks have the same names" "$(plain_disk) $(e820_disk)" "$nfit $e820"
check "read by the other driver: NVDIMM" pmem-io verify --direct "/dev/$nfit" --offset 20M --seed 1
check "read by the other driver: e820" pmem-io verify --length 12M "/dev/$e820" --seed 2
is "all bytes are the same" "$(checksums)" "$written"
pmem-io fill --direct "/dev/$nfit" --offset 15M --length 7000K --seed 3
pmem-io fill "/dev/$e820" --offset 10M --length 10M --seed 3
written=$(checksums)

swap_drivers
check "and back: NVDIMM" pmem-io verify --direct "/dev/$nfit" --offset 15M --length 7000K --seed 3
check "and back: what was not written" pmem-io verify --direct "/dev/$nfit" --offset 25M
check "and back: e820" pmem-io verify "/dev/$e820" --offset 10M --length 10M --seed 3
is "and back: all bytes are the same" "$(checksums)" "$written"
