#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A well-aligned file of an fsdax namespace is mapped with 2 MiB pages, one fault each.
# kernel: transparent_hugepage
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/dax-faults.sh"

cleanup() {
	untrace_faults
	umount $MNT 2>/dev/null
}

# test_mapping NAME TYPE DISK
test_mapping() {
	make_fs "$2" "$3"
	mount_dax "$3"
	fallocate -l 8M $MNT/file
	count_faults >/dev/null
	check "$1: touched through a mapping" pmem-io map-write $MNT/file
	is "$1: faults" "$(count_faults)" "4 of 2 MiB, 0 of 4 KiB"
	is "$1: the physical address is aligned" "$(($(pmem-io phys $MNT/file) % (2 << 20)))" 0
	umount $MNT
}

plan 9
load_driver
trace_faults
test_mapping "ext4, map in RAM" ext4 "$(labelled_disk -m fsdax -M mem)"
disk=$(labelled_disk -m fsdax -M dev)
test_mapping "ext4, map on the device" ext4 "$disk"
test_mapping "XFS" xfs "$disk"
