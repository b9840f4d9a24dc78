#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check on one partition signals the process that maps its page, although XFS on the other holds the disk.
#
# XFS doesn't have the address and refuses to handle the failure, which the kernel's recovery then has to do.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/sigbus.sh"

need sfdisk
cleanup() {
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	umount $MNT/other $MNT 2>/dev/null
	[ ! -e "/dev/$disk" ] || wipefs -aq "/dev/$disk"
	rm -f /tmp/sigbus.*
}

plan 4
load_driver
disk=$(labelled_disk -m fsdax -M mem)
echo 1 >/proc/sys/vm/memory_failure_early_kill
sfdisk -q "/dev/$disk" <<END
label: gpt
start=4096, size=655360
start=663552, size=131072
END
# XFS does not support reflink with DAX on a partition.
make_fs xfs "${disk}p1" -m reflink=0,rmapbt=1
mount_dax "${disk}p1"
mkdir $MNT/other
make_fs ext4 "${disk}p2"
check "ext4 beside XFS, both with DAX" mount -o dax=always "/dev/${disk}p2" $MNT/other
truncate -s 4M $MNT/other/file
pmem-io fill $MNT/other/file
map_start --length 4M $MNT/other/file
dmesg -C
host mce $(($(pmem-io phys --offset 1028K $MNT/other/file)))
check "the kernel has done what it can" wait_for 60 sh -c "dmesg | grep -q 'recovery action for dax page: Recovered'"
map_stop
is "the process gets SIGBUS" "$(sigbus_info | cut -d ' ' -f 1-4)" "sigbus: 1 code 5"
check "XFS survives" sh -c "echo x >$MNT/new && sync -f $MNT"
