#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After an unbind under a mounted file system and a new bind, synced data is there, with the page cache and with DAX.
#
# Records the errors that programs get in between.
# compare
# vm: big 2
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	exec 5>&-
	umount $MNT 2>/dev/null
	provider_cleanup
}

# test_unbind NAME: unbinds and binds the namespace while it is mounted at MNT with a synced file.
test_unbind() {
	truncate -s 2M $MNT/synced $MNT/written
	pmem-io fill $MNT/synced --seed 1
	sync
	cat $MNT/synced >/dev/null
	pmem-io fill --no-sync $MNT/written --seed 2
	check "$1: unbind" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/unbind"
	record "$1: a file that was read before" "$(errno_of cat $MNT/synced)"
	record "$1: the same, past the page cache" "$(errno_of dd if=$MNT/synced iflag=direct bs=4k count=1 of=/dev/null status=none)"
	record "$1: a write" "$(errno_of sh -c "echo text >>$MNT/synced")"
	record "$1: a write, and fsync" "$(errno_of dd if=/dev/zero of=$MNT/written bs=4k count=1 conv=notrunc,fsync status=none)"
	record "$1: a new file, and fsync" "$(errno_of dd if=/dev/zero of=$MNT/new bs=4k count=1 conv=fsync status=none)"
	record "$1: sync -f" "$(errno_of sync -f $MNT)"
	check "$1: umount" umount $MNT
	check_fails "$1: the disk is gone" test -e "/dev/$DISK"
	check "$1: bind" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/bind"
	check "$1: mounted again" mount "/dev/$DISK" $MNT
	check "$1: what was synced" pmem-io verify $MNT/synced --seed 1
	umount $MNT
}

need xfs_repair
plan 52
provide size=$((384 << 20)) pages=1
mkdir -p $MNT
for fs in ext4 xfs; do
	for dax in cached DAX; do
		case $fs in
		ext4) mkfs.ext4 -q -F -b 4096 "/dev/$DISK" ;;
		xfs)
			modprobe xfs
			# No reverse map: with it, and more than one allocation group, XFS hangs (patches/0011).
			mkfs.xfs -q -f -K -m reflink=0,rmapbt=0 "/dev/$DISK"
			;;
		esac
		case $dax in
		cached) mount "/dev/$DISK" $MNT ;;
		DAX) mount_dax "$DISK" ;;
		esac
		test_unbind "$fs, $dax"
		check "$fs, $dax: fsck" fs_is_whole $fs "$DISK"
	done
done
