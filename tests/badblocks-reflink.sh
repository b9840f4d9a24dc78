#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A copy of a bad block that XFS files share fails with EIO, copies no byte of it, and leaves the files unchanged.
# quick
# vm: files
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/reflink.sh"

# test_copies NAME add|poison: 7 subtests.
test_copies() {
	rm -f $MNT/*
	truncate -s 1M $MNT/one
	pmem-io fill $MNT/one
	cp --reflink=always $MNT/one $MNT/two
	cp --reflink=always $MNT/one $MNT/three
	sync
	bad=$(namespace_offset_of $MNT/one 20K)
	make_bad "$2" "$bad"
	is "$1: funshare" "$(errno_of xfs_io -c 'funshare 0 1m' $MNT/two)" 'Input/output error'
	is "$1: funshare has not copied the page" "$(read_page $MNT/two 5)" 'Input/output error'
	# The write covers a part of its second block, the bad one, so XFS must copy the rest of that block.
	is "$1: a write that ends in the page" "$(errno_of pmem-io pwrite $MNT/three --offset 16484 --length 4096 --seed 2)" 'Input/output error'
	is "$1: a write that begins in the page" "$(errno_of pmem-io pwrite $MNT/three --offset 20580 --length 8000 --seed 2)" 'Input/output error'
	is "$1: writes have not copied the page" "$(read_page $MNT/three 5)" 'Input/output error'
	make_good "$bad"
	check "$1: the unshared file is as it was" pmem-io verify $MNT/two
	check "$1: the written file is as it was" pmem-io verify $MNT/three
}

# list_free_pages: one page per MiB of free space, by its offset on the disk.
list_free_pages() {
	xfs_io -r -c fsmap $MNT | awk '/free space/ {
		last = $0
		sub(/.*\[/, "", last)
		first = last + 0
		sub(/^[0-9]*\.\./, "", last)
		for (at = int((first + 2047) / 2048) * 2048 + 80; at + 8 <= last + 0; at += 2048) printf "%d %d\n", at * 512, 4096
	}'
}

need pmem-io xfs_io sfdisk dmsetup
case $DRIVER in
rust_pmem) plan 45 ;;
*) plan 24 ;;
esac
reflink_load
DISK=$(raw_disk "$NAMESPACE")
for stack in $STACKS; do
	reflink_stack "$stack"
	test_copies "$stack, listed" add
	[ "$DRIVER" = nd_pmem ] || test_copies "$stack, unmapped" poison
	reflink_end
done

# Copies go to free space, which is bad here.
reflink_stack disk
truncate -s 2M $MNT/one
pmem-io fill $MNT/one
cp --reflink=always $MNT/one $MNT/two
sync
list_free_pages >/tmp/free
case $DRIVER in
rust_pmem) edit_list add "$(errors_list_of "$NAMESPACE")" </tmp/free ;;
*) awk '{ print $1 / 512, 8 }' /tmp/free | pmem-io lines "/sys/block/$DISK/badblocks" ;;
esac
is "to bad free space: funshare" "$(errno_of xfs_io -c 'funshare 0 2m' $MNT/two)" 'Input/output error'
check "to bad free space: the file is as it was" pmem-io verify $MNT/two
check "to bad free space: so is what it shares blocks with" pmem-io verify $MNT/one
