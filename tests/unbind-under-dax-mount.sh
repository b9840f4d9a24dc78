#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After an unbind under a mounted DAX file system, files fail, unmount works, and no synced data is lost.
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

need pmem-io
plan 8
# A full memory section, so that its struct pages are freed with the binding, and the file system must not use them.
provide size=$((128 << 20))
mkfs.ext4 -q -b 4096 "/dev/$DISK"
mount_dax "$DISK"
truncate -s 4M $MNT/file
pmem-io map-write $MNT/file --durable fsync
check "unbind" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/unbind"
check_fails "a read" pmem-io pread $MNT/file --length 4K
check_fails "a write" pmem-io pwrite $MNT/file --length 4K
check_fails "a new file" sh -c "echo >$MNT/new"
check "umount" umount $MNT
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
check "mounted again" mount_dax "$DISK"
check "the file is there" pmem-io verify $MNT/file
umount $MNT
check "and the file system is whole" e2fsck -fn "/dev/$DISK"
