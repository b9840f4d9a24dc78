#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Deduplication on XFS of files with a bad page is an I/O error, whichever of them has it: the page is not touched, and the files are as they were.
# vm: --bare --e820 352M@512M --e820 64M@880M
. "$(dirname "$0")/../reflink.sh"

cleanup() {
	umount $MNT 2>/dev/null
	[ ! -e /dev/mapper/linear ] || dm_remove linear
	unload_driver
}

# dedupes NAME add|poison FILE: 4 subtests.
dedupes() {
	rm -f $MNT/*
	for file in one twin; do
		truncate -s 1M $MNT/$file
		pmem-io fill $MNT/$file
	done
	sync
	bad=$(offset_of "$MNT/$3" 20K)
	fails "$2" "$bad"
	is "$1: $3 has a bad page" "$(answer xfs_io -c "dedupe $MNT/one 0 0 1048576" $MNT/twin)" 'Input/output error'
	check "$1: both can be written" sh -c "for file in one twin; do pmem-io pwrite $MNT/\$file --offset 512K --length 4K; done"
	works "$bad"
	check "$1: both are as they were" sh -c "pmem-io verify $MNT/one && pmem-io verify $MNT/twin"
	is "$1: they are deduplicated then" "$(answer xfs_io -c "dedupe $MNT/one 0 0 1048576" $MNT/twin)" 'done'
}

need pmem-io xfs_io sfdisk dmsetup
plan 32
reflink_load
for stack in $STACKS; do
	reflink_stack "$stack"
	for file in one twin; do
		dedupes "$stack, listed" add $file
	done
	[ "$stack" = partition ] || reflink_end
done
# Where it is in the kernel's map no more.
for file in one twin; do
	case $DRIVER in
	rust_pmem) dedupes "partition, unmapped" poison $file ;;
	*) for _ in 1 2 3 4; do skip "partition, unmapped" "C can't inject"; done ;;
	esac
done
