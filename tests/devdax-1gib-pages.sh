#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Device DAX with an alignment of 1 GiB is mapped with 1 GiB pages, one fault each.
# compare
# kernel: device_dax vmf_insert_folio_pud
# vm: big
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/devdax.sh"

# test_mapping MAP
test_mapping() {
	labelled_disk -m devdax -M "$1" -a 1G -s 5G >/tmp/devdax-1gib-pages.disk
	is "$1: aligned to" "$(jq -r .daxregion.align /tmp/labelled_disk.json)" 1073741824
	record "$1: size" "$(jq -r .size /tmp/labelled_disk.json)"
	dax=/dev/$(jq -r '.daxregion.devices[0].chardev' /tmp/labelled_disk.json)
	echo >$trace/trace
	check "$1: the first and the last pages stored to" pmem-io map --length 1G "$dax" store=0+64K store=1023M+1M
	is "$1: faults of stores" "$(count_faults)" "1 of 1 GiB, 0 of 2 MiB, 0 of 4 KiB"
	is "$1: loaded from" \
		"$(pmem-io map --length 1G --read-only "$dax" verify=0+64K verify=1023M+1M smaps=KernelPageSize | tr '\n' ';')" \
		"verify: 16 pages;verify: 256 pages;smaps: 1048576 kB;"
	is "$1: faults of loads" "$(count_faults)" "1 of 1 GiB, 0 of 2 MiB, 0 of 4 KiB"
	is "$1: 2 MiB" "$(pmem-io map --length 2M "$dax" load 2>&1)" "pmem-io: mmap: Invalid argument (os error 22)"
	is "$1: kept by an io_uring" "$(pmem-io map --length 1G "$dax" pin)" "pin: granted"
}

plan 16
load_driver
trace_faults
test_mapping mem
test_mapping dev
