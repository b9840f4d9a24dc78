#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A flush that fails, at once or later, fails the request that needed it and no other: programs, ext4, device mapper.
#
# Nor does it keep the driver from being unloaded.
# compare
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/stack.sh"
. "$(dirname "$0")/lib/flush-count.sh"

need python3 dmsetup
cleanup() {
	umount $MNT 2>/dev/null
	dmsetup remove_all --noudevsync --noudevrules
	provider_cleanup
}

# io_error COMMAND…: the last line of the error that Python prints.
io_error() {
	"$@" 2>&1 | tail -n 1
}

# test_failing NAME: 15 subtests.
test_failing() {
	provider flush_fails 1
	record "$1: fsync" "$(io_error file_io "/dev/$DISK" direct write:4096 fsync)"
	record "$1: RWF_DSYNC" "$(io_error file_io "/dev/$DISK" direct dsync:4096)"
	check "$1: a plain write" file_io "/dev/$DISK" direct write:4096
	check "$1: a read" file_io "/dev/$DISK" direct read
	provider flush_fails 0
	check "$1: fsync, once it works again" file_io "/dev/$DISK" direct fsync
	dm_create above "0 65536 linear /dev/$DISK 0"
	provider flush_fails 1
	record "$1: fsync above dm-linear" "$(io_error file_io /dev/mapper/above direct write:4096 fsync)"
	record "$1: RWF_DSYNC above dm-linear" "$(io_error file_io /dev/mapper/above direct dsync:4096)"
	provider flush_fails 0
	dm_remove above
	for dax in never always; do
		mkfs.ext4 -q -F -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 "/dev/$DISK"
		mount -o dax=$dax,errors=remount-ro "/dev/$DISK" $MNT
		truncate -s 64K $MNT/file
		pmem-io fill $MNT/file
		sync
		provider flush_fails 1
		record "$1: fsync on ext4, dax=$dax" "$(io_error file_io $MNT/file cached write:4096 fsync)"
		record "$1: which is, dax=$dax" "$(grep -o " $MNT ext4 r[ow]" /proc/mounts)"
		provider flush_fails 0
		umount $MNT
		check "$1: mounted again, dax=$dax" mount -o dax=$dax "/dev/$DISK" $MNT
		provider flush_fails 1
		echo >$MNT/new
		sync -f $MNT 2>/dev/null || :
		umount $MNT
		provider flush_fails 0
		mount -o dax=$dax "/dev/$DISK" $MNT
		check "$1: no commit record without what it commits, dax=$dax" test ! -e $MNT/new
		umount $MNT
	done
}

plan 36
mkdir -p $MNT
provide pages=1
pattern aaaaaaa 8 >/tmp/data
provider flush_fails 1
check_fails "fsync" sh -c "dd if=/tmp/data of=/dev/$DISK bs=4k oflag=direct conv=fsync"
check "a plain write" dd if=/tmp/data of="/dev/$DISK" bs=4k oflag=direct
check "a read" read_sectors "$DISK" 0 8
provider flush_fails 0
check "fsync, once flushes work again" dd if=/tmp/data of="/dev/$DISK" bs=4k oflag=direct conv=fsync
test_failing "at once"
provider flush_fails 1
dmesg -C
provider_cleanup
check_fails "the driver goes all the same" test -d "/sys/module/$DRIVER"
if [ "$DRIVER" = rust_pmem ]; then
	check "and logs that its last flush failed" sh -c "dmesg | grep -q 'the last flush failed'"
else
	skip "and logs that its last flush failed" "C ignores that"
fi
provide pages=1 flush_async=1
provider flush_delay 20
test_failing "later"
