#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Truncation takes pages from under a mapping: touching one is SIGBUS, and those before it stay.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# touched COMMANDS OF xfs_io: its status, 135 for SIGBUS, after the file was mapped and touched.
touched() {
	status=0
	xfs_io -c "mmap -rw 0 2m" -c "mwrite -S 0x41 0 2m" -c "truncate 5000" "$@" $MNT/file >/tmp/dax-truncate-sigbus.out 2>&1 || status=$?
	echo $status
}

# truncates NAME TYPE
truncates() {
	make_fs "$2" "$disk"
	mount_dax "$disk"
	fallocate -l 2M $MNT/file
	is "$1: a page before the end" "$(touched -c "mread 0 4096")" 0
	fallocate -l 2M $MNT/file
	is "$1: a page after it" "$(touched -c "mread 8192 1")" 135
	fallocate -l 2M $MNT/file
	is "$1: a store after it" "$(touched -c "mwrite 1048576 1")" 135
	fallocate -l 2M $MNT/file
	touched -c "truncate 2m" -c "mread -v 4996 8" >/dev/null
	is "$1: made longer again, there are zeroes" "$(cut -d ' ' -f 3-10 /tmp/dax-truncate-sigbus.out | grep '[0-9]')" "41 41 41 41 00 00 00 00"
	is "$1: as read(2) says" "$(tail -c +5001 $MNT/file | tr -d '\000' | wc -c)" 0
	umount $MNT
}

plan 10
need xfs_io
load_driver
disk=$(labelled_disk -m fsdax -M mem)
truncates "ext4" ext4
truncates "XFS" xfs
rm -f /tmp/dax-truncate-sigbus.out
