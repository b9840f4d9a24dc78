#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A namespace that is unbound, and its module unloaded, under a mapping of a DAX file: the process lives on, and so does the kernel.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/../provider/lib.sh"

cleanup() {
	exec 5>&-
	umount /mnt 2>/dev/null
	provider_cleanup
}
plan 5
provide pages=1
mkfs.ext4 -q -b 4096 "/dev/$DISK"
mount -o dax "/dev/$DISK" /mnt
truncate -s 1M /mnt/file
mkfifo /tmp/commands
xfs_io /mnt/file </tmp/commands >/tmp/answers 2>&1 &
xfs_io=$!
exec 5>/tmp/commands
rm /tmp/commands
printf 'mmap -rw 0 1m\nmwrite -S 0x61 0 1m\n' >&5
sleep 0.5
check "it is mapped" grep -q /mnt/file "/proc/$xfs_io/maps"
check "unbind" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/unbind"
check "the process is there" test -d "/proc/$xfs_io"
printf 'munmap\nquit\n' >&5
exec 5>&-
wait "$xfs_io" || :
check "umount" umount /mnt
check "the module goes" rmmod "$DRIVER"
