#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After truncation, an access to a mapping beyond the end of the file gets SIGBUS, and pages before it stay valid.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# map_and_touch COMMANDS OF xfs_io: maps and touches the file; prints the exit status, 135 for SIGBUS.
map_and_touch() {
	status=0
	xfs_io -c "mmap -rw 0 2m" -c "mwrite -S 0x41 0 2m" -c "truncate 5000" "$@" $MNT/file >/tmp/dax-truncate-sigbus.out 2>&1 || status=$?
	echo $status
}

# test_truncate NAME TYPE
test_truncate() {
	make_fs "$2" "$disk"
	mount_dax "$disk"
	fallocate -l 2M $MNT/file
	is "$1: a page before the end" "$(map_and_touch -c "mread 0 4096")" 0
	fallocate -l 2M $MNT/file
	is "$1: a page after it" "$(map_and_touch -c "mread 8192 1")" 135
	fallocate -l 2M $MNT/file
	is "$1: a store after it" "$(map_and_touch -c "mwrite 1048576 1")" 135
	fallocate -l 2M $MNT/file
	map_and_touch -c "truncate 2m" -c "mread -v 4996 8" >/dev/null
	is "$1: made longer again, there are zeroes" "$(cut -d ' ' -f 3-10 /tmp/dax-truncate-sigbus.out | grep '[0-9]')" "41 41 41 41 00 00 00 00"
	check "$1: as read(2) says" cmp -i 5000:0 -n $(((2 << 20) - 5000)) $MNT/file /dev/zero
	umount $MNT
}

plan 10
need xfs_io
load_driver
disk=$(labelled_disk -m fsdax -M mem)
test_truncate "ext4" ext4
test_truncate "XFS" xfs
rm -f /tmp/dax-truncate-sigbus.out
