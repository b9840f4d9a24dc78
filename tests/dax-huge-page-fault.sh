#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A file is mapped with 2 MiB pages, one fault each, where file, memory and mapping are aligned, and with 4 KiB pages elsewhere.
# compare
# kernel: transparent_hugepage
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/dax-faults.sh"

cleanup() {
	untrace_faults
	umount $MNT 2>/dev/null
}

# count_all_faults: the faults since the last call: of 2 MiB, fallbacks from 2 MiB, of a page.
count_all_faults() {
	printf '%d huge, %d fallen back, %d pages' "$(grep -c 'dax_pmd_fault_done: .*NOPAGE' $FAULTS/trace)" \
		"$(grep -c 'dax_pmd_fault_done: .*FALLBACK' $FAULTS/trace)" "$(grep -c 'dax_pte_fault_done: .*NOPAGE' $FAULTS/trace)"
	echo >$FAULTS/trace
}

# check_faults NAME FAULTS ARGUMENTS OF pmem-io map…
check_faults() {
	name=$1 wanted=$2
	shift 2
	echo >$FAULTS/trace
	pmem-io map "$@" >/dev/null
	found=$(count_all_faults)
	case $wanted in
	*fallen*) ;;
	# The number of fallbacks depends on the address of the mapping.
	*) found=$(echo "$found" | sed 's/ [0-9]* fallen back,//') ;;
	esac
	is "$name" "$found" "$wanted"
}

# test_mapping NAME: 3 subtests, on the mounted file system.
test_mapping() {
	fallocate -l 8M $MNT/mapped
	count_faults >/dev/null
	check "$1: touched through a mapping" pmem-io map-write $MNT/mapped
	is "$1: faults" "$(count_faults)" "4 of 2 MiB, 0 of 4 KiB"
	is "$1: the physical address is aligned" "$(($(pmem-io phys $MNT/mapped) % (2 << 20)))" 0
}

# test_layout NAME: 6 subtests, on the mounted file system.
test_layout() {
	fallocate -l 64M $MNT/file
	check_faults "$1: 64 MiB, populated" "32 huge, 0 fallen back, 0 pages" --populate $MNT/file load=0+4K
	check_faults "$1: 16 MiB, each page stored to" "8 huge, 0 fallen back, 0 pages" --length 16M $MNT/file store
	check_faults "$1: and each loaded from" "8 huge, 0 fallen back, 0 pages" --length 16M --read-only $MNT/file verify
	check_faults "$1: the last page before 2 MiB, and the first after" "2 huge, 0 fallen back, 0 pages" $MNT/file load=2044K+8K
	# Huge pages are aligned to the file; one that is partly outside of the mapping is mapped by small pages.
	check_faults "$1: 2 MiB from 1 MiB on" "0 huge, 2 pages" --offset 1M --length 2M $MNT/file load=0+4K load=2044K+4K
	fallocate -l 1M $MNT/small
	check_faults "$1: a file of 1 MiB" "0 huge, 256 pages" $MNT/small store
}

# mount_new TYPE DISK: a new file system.
mount_new() {
	make_fs "$1" "$2"
	mount_dax "$2"
}

plan 23
load_driver
trace_faults
mount_new ext4 "$(labelled_disk -m fsdax -M mem)"
test_layout ext4
test_mapping "ext4, map in RAM"
umount $MNT
disk=$(labelled_disk -m fsdax -M dev)
mount_new ext4 "$disk"
test_mapping "ext4, map on the device"
umount $MNT
mount_new xfs "$disk"
test_layout xfs
test_mapping "XFS"
umount $MNT
mount_new ext4 "$(labelled_disk -m fsdax -M mem -a 4096 -s 32M)"
fallocate -l 1M $MNT/file
check_faults "a namespace aligned to 4 KiB: 1 MiB" "0 huge, 256 pages" $MNT/file store
umount $MNT
mount_new ext4 "$(e820_disk)"
fallocate -l 8M $MNT/file
check_faults "e820: 8 MiB" "4 huge, 0 fallen back, 0 pages" $MNT/file store
