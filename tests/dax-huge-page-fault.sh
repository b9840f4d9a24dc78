#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A well-aligned file of an fsdax namespace is mapped with 2 MiB pages, one fault each.
# kernel: transparent_hugepage
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

trace=/sys/kernel/tracing

cleanup() {
	echo 0 >$trace/events/fs_dax/enable
	umount $MNT 2>/dev/null
}

# count_faults EVENT: the number of successful faults.
count_faults() {
	grep -c "$1: .*NOPAGE" $trace/trace || :
}

# test_mapping NAME TYPE DISK
test_mapping() {
	make_fs "$2" "$3"
	mount_dax "$3"
	fallocate -l 8M $MNT/file
	echo >$trace/trace
	check "$1: touched through a mapping" pmem-io map-write $MNT/file
	is "$1: faults of 2 MiB" "$(count_faults dax_pmd_fault_done)" 4
	is "$1: faults of a page" "$(count_faults dax_pte_fault_done)" 0
	is "$1: the physical address is aligned" "$(($(pmem-io phys $MNT/file) % (2 << 20)))" 0
	umount $MNT
}

plan 12
load_driver
echo 1 >$trace/events/fs_dax/enable
test_mapping "ext4, map in RAM" ext4 "$(labelled_disk -m fsdax -M mem)"
disk=$(labelled_disk -m fsdax -M dev)
test_mapping "ext4, map on the device" ext4 "$disk"
test_mapping "XFS" xfs "$disk"
