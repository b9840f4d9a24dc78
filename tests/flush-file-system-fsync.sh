#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# fsync on ext4 flushes the region after data and journal are written, with and without DAX.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# check_fsync MOUNT OPTION
check_fsync() {
	mkdir -p $MNT
	mount -o "$1" "/dev/$DISK" $MNT
	pattern aaaaaaa 8 >$MNT/file
	sync
	provider watch "$(disk_offset_of $MNT/file 0)"
	provider flushes 0
	pattern bbbbbbb 8 >/tmp/data
	dd if=/tmp/data of=$MNT/file bs=4k count=1 conv=notrunc,fsync status=none
	check "fsync on ext4 with $1" test "$(provider flushes)" -ge 1
	is "with $1, the last flush saw the data" "$(provider seen)" "$(od -An -tu8 -N8 /tmp/data | tr -d ' ')"
	umount $MNT
}

plan 4
provide pages=1
mkfs.ext4 -q -b 4096 "/dev/$DISK"
check_fsync dax=never
check_fsync dax=always
