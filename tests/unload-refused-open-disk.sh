#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The module cannot be unloaded while a disk is open or a file system is mounted; in sector mode the file system fails.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	exec 5>&-
	umount $MNT 2>/dev/null
	provider_cleanup
}
plan 8
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

# Here nd_btt has the disk.
provider_cleanup
provide dimm=0
disk=$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)
mkfs.ext4 -q -F -b 4096 "/dev/$disk"
mount "/dev/$disk" $MNT
echo text >$MNT/file
sync -f $MNT
check "sector mode: it goes below a mounted file system" rmmod "$DRIVER"
umount $MNT
load_driver
disk=$(disk_of "$NAMESPACE")
check "sector mode: which is mounted again" mount "/dev/$disk" $MNT
is "sector mode: with what was synced" "$(cat $MNT/file)" text
