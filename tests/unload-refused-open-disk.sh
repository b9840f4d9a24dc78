#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The module cannot be unloaded while a disk is open or a file system is mounted.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	exec 5>&-
	umount $MNT 2>/dev/null
	provider_cleanup
}
plan 5
provide pages=1
mkfs.ext4 -q -b 4096 "/dev/$DISK"
exec 5<"/dev/$DISK"
check_fails "an open disk" rmmod "$DRIVER"
exec 5<&-
mount_dax "$DISK"
check_fails "a mounted file system" rmmod "$DRIVER"
check "which works on" sh -c "echo text >$MNT/file && sync && cat $MNT/file"
umount $MNT
check "closed, it goes" rmmod "$DRIVER"
check_fails "it is gone" test -e "/sys/block/$DISK"
