#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A memory failure from hwpoison-inject in metadata shuts XFS down if it holds the DAX device; ext4 ignores it.
#
# Also injects into a file and into free space.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/sigbus.sh"

cleanup() {
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	umount $MNT 2>/dev/null
	modprobe -r hwpoison_inject
	rm -f /tmp/sigbus.*
}

# inject_failure NAME ADDRESS: records the result and the kernel messages.
inject_failure() {
	dmesg -C
	record_result "$1" sh -c "echo $(($2 / 4096)) >/sys/kernel/debug/hwpoison/corrupt-pfn"
	record "$1: the kernel says" "$(dmesg | grep 'Memory failure\|XFS\|EXT4' |
		sed 's/^\[[^]]*\] //; s/0x[0-9a-f]*/X/g; s/pmem-io:[0-9]*/pmem-io/; s/pmem[0-9.]*)/DISK)/; s/ at .*//; s/ caller .*//')"
}

# test_file_system NAME TYPE METADATA OPTION…: METADATA is the offset of metadata on the disk.
test_file_system() {
	name=$1 type=$2 records=$3
	shift 3
	disk=$(labelled_disk -m fsdax -M mem)
	start=$(cat "/sys/block/$disk/device/resource")
	make_fs "$type" "$disk" "$@"
	mount_dax "$disk"
	fallocate -l 4M $MNT/file
	pmem-io map $MNT/file store >/dev/null
	address=$(pmem-io phys --offset 1028K $MNT/file)
	map_start $MNT/file
	inject_failure "$name: a page of a mapped file" "$address"
	map_stop
	record "$name: SIGBUS of the process that maps it" "$(sigbus_info)"
	inject_failure "$name: the same page again" "$address"
	check "$name: the file system survives" sh -c "echo x >$MNT/other && sync -f $MNT"
	inject_failure "$name: a page that no file has" $((start + (220 << 20)))
	check "$name: the file system survives that, too" sh -c "echo x >$MNT/other && sync -f $MNT"
	inject_failure "$name: a page of its records" $((start + records))
	record_result "$name: a file is made then" sh -c "echo x >$MNT/new && sync -f $MNT"
	record_result "$name: the file is read then" pmem-io pread --length 64K $MNT/file
	check "$name: unmounted" umount $MNT
	is_empty "$name: no bad block is listed" cat "/sys/block/$disk/badblocks"
}

plan 45
load_driver
modprobe hwpoison_inject
echo 1 >/proc/sys/vm/memory_failure_early_kill
test_file_system ext4 ext4 0
test_file_system "XFS with reverse mapping" xfs 0 -m rmapbt=1
test_file_system "XFS without" xfs 0 -m rmapbt=0
