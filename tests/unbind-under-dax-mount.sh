#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After an unbind under a mounted DAX file system, files fail, unmount works, and no synced data is lost.
# vm: --bare --append memmap=128M$512M --cpus 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

need pmem-io
cleanup() {
	umount /mnt 2>/dev/null
	provider_cleanup
}
plan 8
# A full memory section, so that its struct pages are freed with the binding, and the file system must not use them.
provide size=$((128 << 20))
mkfs.ext4 -q -b 4096 "/dev/$DISK"
mount -o dax "/dev/$DISK" /mnt
truncate -s 4M /mnt/file
pmem-io map-write /mnt/file --durable fsync
check "unbind" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/unbind"
check_fails "a read" pmem-io pread /mnt/file --length 4K
check_fails "a write" pmem-io pwrite /mnt/file --length 4K
check_fails "a new file" sh -c "echo >/mnt/new"
check "umount" umount /mnt
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
check "mounted again" mount -o dax "/dev/$DISK" /mnt
check "the file is there" pmem-io verify /mnt/file
umount /mnt
check "and the file system is whole" e2fsck -fn "/dev/$DISK"
