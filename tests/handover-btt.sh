#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A namespace in sector mode can be handed over from one driver to the other and back.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	unload_both_drivers
}

need_both_drivers
plan 7
load_driver
disk=$(labelled_disk -m sector -s 32M -l 4096)
size=$(blockdev --getsize64 "/dev/$disk")
check "written" pmem-io fill --direct --length 8M "/dev/$disk" --seed 1
swap_drivers
is "the other driver: size" "$(blockdev --getsize64 "/dev/$disk")" "$size"
check "the other driver: read" pmem-io verify --direct --length 8M "/dev/$disk" --seed 1
check "the other driver: written" pmem-io fill --direct --offset 4M --length 8M "/dev/$disk" --seed 2
swap_drivers
check "back: what is left of the first" pmem-io verify --direct --length 4M "/dev/$disk" --seed 1
check "back: what the other wrote" pmem-io verify --direct --offset 4M --length 8M "/dev/$disk" --seed 2
ndctl disable-namespace "$(jq -r .dev /tmp/labelled_disk.json)" >/dev/null 2>&1
check "the translation table is consistent" ndctl check-namespace "$(jq -r .dev /tmp/labelled_disk.json)"
