#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# MADV_HWPOISON on a page of a DAX file signals the caller and other mappers: per page on XFS with reverse mapping.
#
# On ext4, and on XFS without reverse mapping, the memory manager handles it for the whole mapped area.
# compare
# kernel: device_dax
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/sigbus.sh"

cleanup() {
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
	rm -f /tmp/sigbus.*
}

# signal_other POISON: the signal that another process gets, which maps all of the file, when this process poisons
# pages; and the result of its next access.
signal_other() {
	map_start --length 4M "$file"
	pmem-io map --length 4M "$file" load "$1" >/dev/null || :
	map_stop
	sigbus_info
}

# test_file NAME FILE
test_file() {
	name=$1 file=$2
	pmem-io map --length 4M "$file" store >/dev/null
	dmesg -C
	record "$name: SIGBUS of the caller" "$(pmem-io map --length 4M "$file" load poison=1028K+4K sigbus)"
	record "$name: the kernel says" "$(dmesg | sed -n 's/.*Memory failure: 0x[0-9a-f]*: //p' | sed 's/pmem-io:[0-9]*/pmem-io/')"
	record "$name: others by default" "$(signal_other poison=64K+4K)"
	echo 1 >/proc/sys/vm/memory_failure_early_kill
	record "$name: others, where the machine says so" "$(signal_other poison=3M+4K)"
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	record_result "$name: the same page again" pmem-io map --length 4M "$file" load poison=3M+4K sigbus
	record_result "$name: touched through a mapping" pmem-io map --length 4M "$file" verify
	record_result "$name: stored to through a mapping" pmem-io map --length 4M "$file" store=1028K+4K
}

# test_file_system NAME TYPE OPTION…
test_file_system() {
	name=$1 type=$2
	shift 2
	make_fs "$type" "$disk" "$@"
	mount_dax "$disk"
	fallocate -l 4M $MNT/file
	test_file "$name" $MNT/file
	record_result "$name: read(2)" pmem-io pread --length 4M $MNT/file
	record_result "$name: write(2)" pmem-io pwrite --offset 1028K --length 4K $MNT/file
	is_empty "$name: no bad block is listed" cat "/sys/block/$disk/badblocks"
	check "$name: the file system survives" sh -c "echo x >$MNT/other && sync -f $MNT"
	umount $MNT
}

plan 51
load_driver
disk=$(labelled_disk -m fsdax -M mem)
test_file_system ext4 ext4
disk=$(labelled_disk -m fsdax -M mem)
test_file_system "XFS with reverse mapping" xfs -m rmapbt=1
disk=$(labelled_disk -m fsdax -M dev)
test_file_system "XFS without" xfs -m rmapbt=0
disk=$(e820_disk)
test_file_system "ext4 on e820" ext4
labelled_disk -m devdax -s 32M >/dev/null
modprobe device_dax
settle
test_file "device DAX" "/dev/$(ndctl list -X -m devdax | jq -r '.[].daxregion.devices[].chardev')"
