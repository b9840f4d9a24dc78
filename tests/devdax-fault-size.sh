#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Device DAX is mapped with pages of its alignment, 4 KiB or 2 MiB; a misaligned mapping is refused.
# compare
# kernel: device_dax
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/devdax.sh"

# test_alignment ALIGN FAULTS PAGESIZE
test_alignment() {
	labelled_disk -m devdax -s 32M -a "$1" >/dev/null
	dax=/dev/$(ndctl list -X -m devdax | jq -r '.[].daxregion.devices[].chardev')
	echo >$trace/trace
	check "$1: stored to" pmem-io map --length 8M "$dax" store
	is "$1: faults of stores" "$(count_faults)" "$2"
	is "$1: loaded from" "$(pmem-io map --length 8M --read-only "$dax" verify smaps=KernelPageSize smaps=Rss | tr '\n' ';')" \
		"verify: 2048 pages;smaps: $3 kB;smaps: 8192 kB;"
	is "$1: faults of loads" "$(count_faults)" "$2"
	record_result "$1: 12 KiB" pmem-io map --length 12K "$dax" load
	record_result "$1: MAP_SYNC" pmem-io map --length 2M --sync "$dax" load
	record_result "$1: mprotect of 4 KiB" pmem-io map --length 2M "$dax" store read-only=64K+4K load
	record_result "$1: munmap of 4 KiB" pmem-io map --length 2M "$dax" store unmap=64K+4K load
	record_result "$1: MADV_DONTNEED of 4 KiB" pmem-io map --length 2M "$dax" store forget=64K+4K verify
	record_result "$1: msync" pmem-io map-write --length 2M --durable msync "$dax"
	record_result "$1: fsync" pmem-io map-write --length 2M --durable fsync "$dax"
	record_result "$1: read(2)" pmem-io pread --length 4K "$dax"
	record_result "$1: write(2)" pmem-io pwrite --length 4K "$dax"
}

plan 26
load_driver
trace_faults
test_alignment 4096 "0 of 1 GiB, 0 of 2 MiB, 2048 of 4 KiB" 4
test_alignment 2097152 "0 of 1 GiB, 4 of 2 MiB, 0 of 4 KiB" 2048
