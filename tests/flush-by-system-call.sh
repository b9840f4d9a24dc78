#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# fsync, fdatasync, msync, syncfs and unmount flush the region, on ext4 and XFS, with and without DAX; reads do not.
# compare
# quick
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# check_flushes NAME COMMAND…: the command flushes the region.
check_flushes() {
	name=$1
	shift
	provider flushes 0
	"$@" >/dev/null
	check "$name" test "$(provider flushes)" -gt 0
}

# reads_without_flush FILE: the journal may be committed at the same time, which flushes.
reads_without_flush() {
	provider flushes 0
	pmem-io verify "$1"
	[ "$(provider flushes)" = 0 ]
}

# test_calls TYPE OPTION
test_calls() {
	mount -o "$2" "/dev/$DISK" $MNT
	rm -f $MNT/file
	fallocate -l 1M $MNT/file
	sync -f $MNT
	check_flushes "$1, $2: write(2) and fsync" pmem-io fill $MNT/file
	check "$1, $2: reading does not" wait_for 30 reads_without_flush $MNT/file
	check_flushes "$1, $2: a mapping and msync" pmem-io map-write --seed 2 --durable msync $MNT/file
	check_flushes "$1, $2: a mapping and fsync" pmem-io map-write --seed 3 --durable fsync $MNT/file
	check_flushes "$1, $2: write(2) and fdatasync" dd if=/dev/zero of=$MNT/file bs=64K count=1 conv=fdatasync,notrunc status=none
	check_flushes "$1, $2: O_SYNC" dd if=/dev/zero of=$MNT/file bs=64K count=1 oflag=sync conv=notrunc status=none
	check_flushes "$1, $2: O_DIRECT and O_DSYNC" dd if=/dev/zero of=$MNT/file bs=64K count=1 oflag=direct,dsync conv=notrunc status=none
	echo x >$MNT/new
	check_flushes "$1, $2: a new file and syncfs" sync -f $MNT
	echo y >$MNT/new
	check_flushes "$1, $2: unmounting" umount $MNT
	mount -o "$2" "/dev/$DISK" $MNT
	is "$1, $2: it is there" "$(cat $MNT/new)" y
	umount $MNT
}

plan 40
provide pages=1
mkdir -p $MNT
mkfs.ext4 -q -F -b 4096 "/dev/$DISK"
test_calls ext4 dax=always
test_calls ext4 dax=never
modprobe xfs
# XFS does not support a disk this small.
mkfs.xfs -q -f -K --unsupported "/dev/$DISK"
test_calls XFS dax=always
test_calls XFS dax=never
