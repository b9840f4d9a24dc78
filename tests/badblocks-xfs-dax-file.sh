#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bad page in a DAX file on XFS: what fails, and heals nothing; a write of the whole page, which heals it; and that the rest
# of the file, and a copy that shares its blocks, are none the worse.
# compare
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	umount $MNT 2>/dev/null
	provider_cleanup
}

# breaks: a new file of 1 MiB, of which page 100 is bad.
breaks() {
	rm -f $MNT/file
	fallocate -l 1M $MNT/file
	pmem-io fill $MNT/file
	sync -f $MNT
	address=$(pmem-io phys $MNT/file --offset 400K)
	listed=$(((address - (512 << 20)) / 512))+8
	provider bad "$((address - (512 << 20)))+4K"
}

# fails NAME COMMAND…: and the page stays bad.
fails() {
	name=$1
	shift
	record_result "$name" "$@"
	is "$name: it is listed still" "$(badblocks_of "$DISK")" "$listed"
}

# heals NAME COMMAND…: the page; and the rest of the file is what it was.
heals() {
	name=$1
	shift
	check "$name" "$@"
	is "$name: nothing is listed then" "$(badblocks_of "$DISK")" ""
	check "$name: what is before" pmem-io verify --length 400K $MNT/file
	check "$name: what is behind" pmem-io verify --offset 404K --length 620K $MNT/file
}

plan 30
need xfs_io
provide pages=1
mkdir -p $MNT
modprobe xfs
# Smaller than XFS wants to be.
mkfs.xfs -q -f -K --unsupported -m reflink=1 "/dev/$DISK"
mount -o dax=always "/dev/$DISK" $MNT
breaks
is "a mapping: it is refused" "$(pmem-io map-read $MNT/file)" "page 100 code 4 lsb 12 address 0x64000"
fails "read(2) of it" pmem-io pread --offset 400K --length 4K $MNT/file
fails "write(2) of a part of it" pmem-io pwrite --offset 409700 --length 100 $MNT/file
fails "a part of it zeroed" xfs_io -c "fzero 409700 100" $MNT/file
fails "a part of it punched out" fallocate -p -o 409700 -l 100 $MNT/file
fails "the file cut off within it" truncate -s 409700 $MNT/file
fails "process_vm_readv" pmem-io map --offset 400K --length 4K $MNT/file process-read
fails "vmsplice" pmem-io map --offset 400K --length 4K $MNT/file vmsplice
fails "a copy" cp --reflink=never $MNT/file $MNT/twin
check "a copy that shares its blocks" cp --reflink=always $MNT/file $MNT/copy
fails "write(2) of a part of it in the copy" pmem-io pwrite --offset 409700 --length 100 $MNT/copy
check "write(2) elsewhere in the copy" pmem-io pwrite --offset 600K --length 4K --seed 2 $MNT/copy
check "the copy has it" pmem-io verify --offset 600K --length 4K --seed 2 $MNT/copy
rm $MNT/copy
heals "write(2) of all of it" pmem-io pwrite --offset 400K --length 4K $MNT/file
breaks
heals "write(2) of it and more" pmem-io pwrite --offset 396K --length 12K $MNT/file
