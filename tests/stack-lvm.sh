#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An LVM volume over two namespaces supports DAX, grows while mounted, and is found again after a reload of the driver.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

need lvm fio xfs_growfs xfs_repair
cleanup() {
	umount $MNT 2>/dev/null
	run_lvm vgchange -an pmem_test
	dmsetup remove_all --noudevsync --noudevrules
}

plan 17
load_driver
make_two_disks -m fsdax -M mem -s 224M
check "two physical volumes" run_lvm pvcreate -q -ff -y "/dev/$FIRST" "/dev/$SECOND"
check "a volume group" run_lvm vgcreate -q -s 4M pmem_test "/dev/$FIRST" "/dev/$SECOND"
check "a volume of both" run_lvm lvcreate -q -y -Wn -l 85 -n files pmem_test
record "what it consists of" "$(dmsetup table pmem_test-files | awk '{ print $1, $2, $3, $5 }')"
is "the queue has DAX" "$(queue_attributes mapper/pmem_test-files dax)" dax:1
make_fs xfs mapper/pmem_test-files
check "mounted with DAX" mount_dax mapper/pmem_test-files
truncate -s 8M $MNT/file
check "stores by MAP_SYNC" pmem-io map-write --sync --durable flush $MNT/file
check "fio in a file" fio_verify $MNT/fio --ioengine=psync
check "grown while it is mounted" run_lvm lvextend -q -l +20 pmem_test/files
check "and the file system" xfs_growfs $MNT
check "what was stored is there" pmem-io map-verify $MNT/file
record_unload_refused "the driver is in use"
umount $MNT
check "fsck" xfs_repair -n /dev/mapper/pmem_test-files
check "deactivated" run_lvm vgchange -q -an pmem_test
reload_driver
check "the driver was away: activated again" run_lvm vgchange -q -ay pmem_test
check "mounted again" mount_dax mapper/pmem_test-files
check "what was stored is there still" pmem-io map-verify $MNT/file
umount $MNT
run_lvm vgremove -q -f -y pmem_test >/dev/null
