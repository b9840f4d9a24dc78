#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A namespace in sector mode has a disk with sectors of 512 or 4096 bytes, which is found again with its data.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# test_btt SECTOR-SIZE
test_btt() {
	disk=$(labelled_disk -m sector -s 32M -l "$1")
	is "$1: its name says it" "${disk#"${disk%s}"}" s
	is "$1: sectors" "$(cat "/sys/block/$disk/queue/logical_block_size")" "$1"
	is "$1: bound to the driver under test" "$(driver_of "$(basename "$(readlink "/sys/block/$disk/device")")")" "$DRIVER"
	check "$1: no DAX" grep -q 0 "/sys/block/$disk/queue/dax"
	check "$1: written" pmem-io fill --direct --length 4M --block 64K "/dev/$disk"
	check "$1: overwritten" pmem-io fill --direct --offset 1M --length 1M --block "$1" "/dev/$disk" --seed 2
	unload_driver
	check_fails "$1: gone with the driver" test -e "/dev/$disk"
	reset_regions
	load_driver
	is "$1: found again, sectors" "$(cat "/sys/block/$disk/queue/logical_block_size")" "$1"
	check "$1: read" pmem-io verify --direct --length 1M "/dev/$disk"
	check "$1: what was overwritten" pmem-io verify --direct --offset 1M --length 1M "/dev/$disk" --seed 2
	check "$1: what was not" pmem-io verify --direct --offset 2M --length 2M "/dev/$disk"
}

plan 22
load_driver
test_btt 4096
test_btt 512
