#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A page of a DAX file is declared dead by MADV_HWPOISON: who did it and who wants to know are told, by the page on XFS with
# reverse mapping, by the mapped piece elsewhere, as ext4 and XFS without it leave that to the memory manager.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/sigbus.sh"

cleanup() {
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
	rm -f /tmp/sigbus.*
}

# other POISON: what another process, which has all of the file mapped, is told when this one poisons; and what it finds then.
other() {
	map_start --length 4M "$file"
	pmem-io map --length 4M "$file" load "$1" >/dev/null || :
	map_stop
	sigbus_info
}

# rows NAME FILE
rows() {
	name=$1 file=$2
	pmem-io map --length 4M "$file" store >/dev/null
	dmesg -C
	record "$name: who did it is told" "$(pmem-io map --length 4M "$file" load poison=1028K+4K told)"
	record "$name: the kernel says" "$(dmesg | sed -n 's/.*Memory failure: 0x[0-9a-f]*: //p' | sed 's/pmem-io:[0-9]*/pmem-io/')"
	record "$name: others by default" "$(other poison=64K+4K)"
	echo 1 >/proc/sys/vm/memory_failure_early_kill
	record "$name: others, where the machine says so" "$(other poison=3M+4K)"
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	record_result "$name: the same page again" pmem-io map --length 4M "$file" load poison=3M+4K told
	record_result "$name: touched through a mapping" pmem-io map --length 4M "$file" verify
	record_result "$name: stored to through a mapping" pmem-io map --length 4M "$file" store=1028K+4K
}

# files NAME TYPE OPTION…
files() {
	name=$1 type=$2
	shift 2
	make_fs "$type" "$disk" "$@"
	mount_dax "$disk"
	fallocate -l 4M $MNT/file
	rows "$name" $MNT/file
	record_result "$name: read(2)" pmem-io pread --length 4M $MNT/file
	record_result "$name: write(2)" pmem-io pwrite --offset 1028K --length 4K $MNT/file
	is "$name: no bad block is listed" "$(cat "/sys/block/$disk/badblocks")" ""
	check "$name: the file system lives" sh -c "echo x >$MNT/other && sync -f $MNT"
	umount $MNT
}

plan 51
load_driver
disk=$(labelled_disk -m fsdax -M mem)
files ext4 ext4
disk=$(labelled_disk -m fsdax -M mem)
files "XFS with reverse mapping" xfs -m rmapbt=1
disk=$(labelled_disk -m fsdax -M dev)
files "XFS without" xfs -m rmapbt=0
disk=$(e820_disk)
files "ext4 on e820" ext4
labelled_disk -m devdax -s 32M >/dev/null
modprobe device_dax
settle
rows "device DAX" "/dev/$(ndctl list -X -m devdax | jq -r '.[].daxregion.devices[].chardev')"
