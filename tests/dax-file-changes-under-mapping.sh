#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A mapping that was stored to shows what read(2) shows after the file is punched, zeroed, collapsed, shared or swapped.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# No test stores to a mapping of shared blocks: that is a BUG of 7.2's fs/dax.c, with any driver.

cleanup() {
	umount $MNT 2>/dev/null
	rm -f /tmp/dax-file-changes-under-mapping.*
}

# test_change NAME COMMAND [RANGE]: maps a file of 4 MiB, stores to all of it, and runs the command. Checks how many
# pages of the mapping (or of the range) equal read(2), and records the contents.
test_change() {
	rm -f $MNT/file
	fallocate -l 4M $MNT/file
	is "$type: $1" "$(pmem-io map $MNT/file store "run=cd $MNT && $2 >/dev/null" "same${3:+=$3}" 2>&1 | tail -n 1)" \
		"same: ${4:-1024} pages of ${4:-1024}"
	record "$type: $1: it has been done" "$(md5sum <$MNT/file) $(stat -c '%s bytes' $MNT/file)"
}

plan 47
need xfs_io
load_driver
disk=$(labelled_disk -m fsdax -M mem)
for type in ext4 XFS; do
	case $type in
	ext4) make_fs ext4 "$disk" ;;
	XFS) make_fs xfs "$disk" -m reflink=1 ;;
	esac
	mount_dax "$disk"
	fallocate -l 4M $MNT/other
	pmem-io fill --seed 5 $MNT/other
	test_change "nothing" "true"
	test_change "a hole" "fallocate -p -o 1M -l 1M file"
	test_change "a hole within a page" "fallocate -p -o 5000 -l 1000 file"
	test_change "zeroed" "fallocate -z -o 1M -l 1M file"
	test_change "moved together" "fallocate -c -o 1M -l 1M file" 0+3M 768
	test_change "moved apart" "fallocate -i -o 1M -l 1M file"
	test_change "cut off and made longer" "truncate -s 1000000 file && truncate -s 4M file"
	test_change "written to by write(2)" "pmem-io pwrite --seed 2 --offset 1M --length 1M file"
	test_change "written to by direct I/O" "pmem-io pwrite --direct --seed 2 --offset 1M --length 1M file"
	if [ $type = XFS ]; then
		test_change "shared with a copy" "cp --reflink=always file copy"
		check "$type: the copy has its bytes" pmem-io map-verify $MNT/copy
		test_change "shared with a copy that is written to" \
			"cp --reflink=always file copy && pmem-io pwrite --seed 2 --offset 1M --length 1M copy"
		check "$type: the copy has what was written" pmem-io map-verify --seed 2 --offset 1M --length 1M $MNT/copy
		check "$type: and it alone" pmem-io map-verify $MNT/file
		test_change "a piece of another file in it" "xfs_io -c 'reflink other 0 1m 1m' file"
		test_change "a piece of another file that is the same" "cp --reflink=never file twin && xfs_io -c 'dedupe twin 0 0 4m' file"
	fi
	umount $MNT
done
