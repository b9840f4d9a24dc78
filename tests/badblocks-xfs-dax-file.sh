#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On XFS, only a write of the whole bad page of a DAX file repairs it; other operations fail and leave it listed.
#
# The rest of the file, and a copy that shares its blocks, stay intact.
# compare
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# make_bad_page: makes a new file of 1 MiB, whose page 100 is bad.
make_bad_page() {
	rm -f $MNT/file
	fallocate -l 1M $MNT/file
	pmem-io fill $MNT/file
	sync -f $MNT
	address=$(pmem-io phys $MNT/file --offset 400K)
	listed=$(((address - MEMORY) / 512))+8
	provider bad "$((address - MEMORY))+4K"
}

# check_stays_bad NAME COMMAND…: records the result; the page stays listed.
check_stays_bad() {
	name=$1
	shift
	record_result "$name" "$@"
	is "$name: it is listed still" "$(badblocks_of "$DISK")" "$listed"
}

# check_repairs NAME SEED COMMAND…: the command repairs the page by data of this seed and leaves the rest of the file unchanged.
check_repairs() {
	name=$1 seed=$2
	shift 2
	check "$name" "$@"
	check "$name: what it wrote" pmem-io verify --offset 400K --length 4K --seed "$seed" $MNT/file
	is_empty "$name: nothing is listed then" badblocks_of "$DISK"
	check "$name: what is before" pmem-io verify --length 400K $MNT/file
	check "$name: what is behind" pmem-io verify --offset 404K --length 620K $MNT/file
}

plan 32
need xfs_io
provide pages=1
mkdir -p $MNT
modprobe xfs
# XFS does not support a disk this small.
mkfs.xfs -q -f -K --unsupported -m reflink=1 "/dev/$DISK"
mount -o dax=always "/dev/$DISK" $MNT
make_bad_page
is "a mapping: it is refused" "$(pmem-io map-read $MNT/file)" "page 100 code 4 lsb 12 address 0x64000"
check_stays_bad "read(2) of it" pmem-io pread --offset 400K --length 4K $MNT/file
check_stays_bad "write(2) of a part of it" pmem-io pwrite --offset 409700 --length 100 $MNT/file
check_stays_bad "a part of it zeroed" xfs_io -c "fzero 409700 100" $MNT/file
check_stays_bad "a part of it punched out" fallocate -p -o 409700 -l 100 $MNT/file
check_stays_bad "the file cut off within it" truncate -s 409700 $MNT/file
check_stays_bad "process_vm_readv" pmem-io map --offset 400K --length 4K $MNT/file process-read
check_stays_bad "vmsplice" pmem-io map --offset 400K --length 4K $MNT/file vmsplice
check_stays_bad "a copy" cp --reflink=never $MNT/file $MNT/twin
check "a copy that shares its blocks" cp --reflink=always $MNT/file $MNT/copy
check_stays_bad "write(2) of a part of it in the copy" pmem-io pwrite --offset 409700 --length 100 $MNT/copy
check "write(2) elsewhere in the copy" pmem-io pwrite --offset 600K --length 4K --seed 2 $MNT/copy
check "the copy has it" pmem-io verify --offset 600K --length 4K --seed 2 $MNT/copy
rm $MNT/copy
check_repairs "write(2) of all of it" 2 pmem-io pwrite --offset 400K --length 4K --seed 2 $MNT/file
make_bad_page
check_repairs "write(2) of it and more" 1 pmem-io pwrite --offset 396K --length 12K $MNT/file
