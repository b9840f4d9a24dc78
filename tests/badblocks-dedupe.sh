#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# XFS deduplication of files with a bad page shares no blocks, does not touch the page, and leaves both files unchanged.
# vm: files
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/reflink.sh"

# dedupe: deduplicates equal blocks, and prints whether the first and the last block are shared then. The kernel
# returns an error (7.3) or, because it loses the error of the comparison, that all was deduplicated (7.2).
dedupe() {
	xfs_io -c "dedupe $MNT/one 0 0 1048576" $MNT/twin >/tmp/dedupe 2>&1 || :
	sed 's/^/# /' /tmp/dedupe >&2
	for page in 0 255; do
		if [ "$(pmem-io phys $MNT/one --offset $((page * 4096)))" = "$(pmem-io phys $MNT/twin --offset $((page * 4096)))" ]; then
			echo shared
		else
			echo apart
		fi
	done | xargs
}

# test_dedupe NAME add|poison FILE: 4 subtests.
test_dedupe() {
	rm -f $MNT/*
	for file in one twin; do
		truncate -s 1M $MNT/$file
		pmem-io fill $MNT/$file
	done
	sync
	bad=$(namespace_offset_of "$MNT/$3" 20K)
	make_bad "$2" "$bad"
	is "$1: $3 has a bad page" "$(dedupe)" 'apart apart'
	check "$1: both can be written, $3" sh -c "for file in one twin; do pmem-io pwrite $MNT/\$file --offset 512K --length 4K || exit; done"
	make_good "$bad"
	check "$1: both are as they were, $3" sh -c "pmem-io verify $MNT/one && pmem-io verify $MNT/twin"
	is "$1: they are deduplicated then, $3" "$(dedupe)" 'shared shared'
}

need pmem-io xfs_io sfdisk dmsetup
case $DRIVER in
rust_pmem) plan 32 ;;
*) plan 24 ;;
esac
reflink_load
DISK=$(raw_disk "$NAMESPACE")
for stack in $STACKS; do
	reflink_stack "$stack"
	for file in one twin; do
		test_dedupe "$stack, listed" add $file
	done
	[ "$stack" = partition ] || reflink_end
done
# A page that is unmapped from the direct map. The C driver cannot inject that.
[ "$DRIVER" = nd_pmem ] || for file in one twin; do
	test_dedupe "partition, unmapped" poison $file
done
