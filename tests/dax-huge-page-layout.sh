#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# How files are mapped: pieces of 2 MiB, as many as the file has, where file and memory lie well (512 for each GiB); pages
# otherwise.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# quick
. "$(dirname "$0")/lib/test.sh"

trace=/sys/kernel/tracing

cleanup() {
	echo 0 >$trace/events/fs_dax/enable
	umount $MNT 2>/dev/null
}

# faults: how many ended how, since the last time: of 2 MiB, of these not mapped as such, of a page.
faults() {
	printf '%d huge, %d fallen back, %d pages' "$(grep -c 'dax_pmd_fault_done: .*NOPAGE' $trace/trace)" \
		"$(grep -c 'dax_pmd_fault_done: .*FALLBACK' $trace/trace)" "$(grep -c 'dax_pte_fault_done: .*NOPAGE' $trace/trace)"
	echo >$trace/trace
}

# touches NAME FAULTS ARGUMENTS OF pmem-io map…
touches() {
	name=$1 wanted=$2
	shift 2
	echo >$trace/trace
	pmem-io map "$@" >/dev/null
	found=$(faults)
	case $wanted in
	*fallen*) ;;
	# How often depends on where in the process the mapping is.
	*) found=$(echo "$found" | sed 's/ [0-9]* fallen back,//') ;;
	esac
	is "$name" "$found" "$wanted"
}

# maps TYPE
maps() {
	make_fs "$1" "$disk"
	mount_dax "$disk"
	fallocate -l 64M $MNT/file
	touches "$1: 64 MiB, populated" "32 huge, 0 fallen back, 0 pages" --populate $MNT/file load=0+4K
	touches "$1: 16 MiB, each page stored to" "8 huge, 0 fallen back, 0 pages" --length 16M $MNT/file store
	touches "$1: and each loaded from" "8 huge, 0 fallen back, 0 pages" --length 16M --read-only $MNT/file verify
	touches "$1: the last page before 2 MiB, and the first after" "2 huge, 0 fallen back, 0 pages" $MNT/file load=2044K+8K
	# The pieces lie as the file does: what is in part outside of the mapping is mapped by pages.
	touches "$1: 2 MiB from 1 MiB on" "0 huge, 2 pages" --offset 1M --length 2M $MNT/file load=0+4K load=2044K+4K
	fallocate -l 1M $MNT/small
	touches "$1: a file of 1 MiB" "0 huge, 256 pages" $MNT/small store
	umount $MNT
}

plan 14
load_driver
echo 1 >$trace/events/fs_dax/enable
disk=$(labelled_disk -m fsdax -M mem)
maps ext4
maps xfs
disk=$(labelled_disk -m fsdax -M mem -a 4096 -s 32M)
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 1M $MNT/file
touches "a namespace aligned to 4 KiB: 1 MiB" "0 huge, 256 pages" $MNT/file store
umount $MNT
make_fs ext4 "$(e820_disk)"
mount_dax "$(e820_disk)"
fallocate -l 8M $MNT/file
touches "e820: 8 MiB" "4 huge, 0 fallen back, 0 pages" $MNT/file store
