#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The queue limits of a disk in sysfs are the expected ones in each mode.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# Limits that only affect performance are left out.
limits='alignment_offset 0
badblocks 
dax/write_cache 1
discard_alignment 0
hidden 0
queue/add_random 0
queue/atomic_write_max_bytes 0
queue/chunk_sectors 0
queue/discard_granularity 0
queue/discard_max_bytes 0
queue/dma_alignment 511
queue/fua 0
queue/hw_sector_size 512
queue/iostats 0
queue/logical_block_size 512
queue/max_hw_sectors_kb 2147483647
queue/max_segment_size 65536
queue/max_segments 128
queue/minimum_io_size 4096
queue/optimal_io_size 0
queue/physical_block_size 4096
queue/rotational 0
queue/stable_writes 0
queue/virt_boundary_mask 0
queue/write_cache write back
queue/zoned none
removable 0
ro 0'

# show_limits DISK: its limits in the same format.
show_limits() {
	printf '%s\n' "$limits" | while read -r file _; do
		value=missing
		[ ! -e "/sys/block/$1/$file" ] || value=
		read -r value <"/sys/block/$1/$file" || :
		printf '%s %s\n' "$file" "$value"
	done
}

# check_limits NAME DISK DAX PARENT: checks the limits, queue/dax, and the kind of the parent device.
check_limits() {
	is "$1: limits" "$(show_limits "$2")" "$limits"
	is "$1: DAX" "$(cat "/sys/block/$2/queue/dax")" "$3"
	is "$1: parent" "$(basename "$(readlink "/sys/block/$2/device")" | tr -d 0-9.)" "$4"
}

plan 12
load_driver
check_limits "NVDIMM without labels" "$(plain_disk)" 0 namespace
check_limits "e820" "$(e820_disk)" 1 namespace
check_limits "fsdax, map in RAM" "$(labelled_disk -m fsdax -M mem)" 1 pfn
check_limits "fsdax, map on the device" "$(labelled_disk -m fsdax -M dev)" 1 pfn
