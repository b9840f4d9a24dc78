#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Each kind of file I/O on ext4 and XFS flushes the region the recorded number of times, and the data survives a
# remount.
# compare
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/flush-count.sh"

need python3 mkfs.xfs
# test_counts TYPE DAX: 10 subtests.
test_counts() {
	name="$1, dax=$2"
	mount -o "dax=$2,noatime" "/dev/$DISK" $MNT
	# Allocate all blocks first, so that only the tested I/O writes.
	pmem-io fill $MNT/file
	sync
	record "$name: overwritten and fsync" "$(settle_writes && count_flushes file_io $MNT/file cached write:4096 fsync)"
	record "$name: overwritten and fdatasync" "$(settle_writes && count_flushes file_io $MNT/file cached write:4096 fdatasync)"
	record "$name: overwritten with O_DIRECT and fdatasync" "$(settle_writes && count_flushes file_io $MNT/file direct write:4096 fdatasync)"
	record "$name: overwritten with O_DIRECT and RWF_DSYNC" "$(settle_writes && count_flushes file_io $MNT/file direct dsync:4096)"
	record "$name: overwritten with RWF_DSYNC" "$(settle_writes && count_flushes file_io $MNT/file cached dsync:4096)"
	record "$name: a mapping and msync" "$(settle_writes && count_flushes pmem-io map-write $MNT/file --durable msync --seed 2)"
	record "$name: fsync with nothing to do" "$(settle_writes && count_flushes file_io $MNT/file cached fsync)"
	case $2 in
	always) record "$name: MAP_SYNC, flushed by the program" "$(settle_writes && count_flushes pmem-io map-write $MNT/file --sync --durable flush --seed 3)" ;;
	*) check_fails "$name: MAP_SYNC" pmem-io map-write $MNT/file --sync ;;
	esac
	pmem-io fill $MNT/file --seed 4
	check "$name: umount flushes" test "$(count_flushes umount $MNT)" -ge 1
	mount -o "dax=$2,noatime" "/dev/$DISK" $MNT
	check "$name: it is there" pmem-io verify $MNT/file --seed 4
	umount $MNT
}

# settle_writes: makes the file system write all pending data.
settle_writes() {
	sync
	sync
}

plan 40
# MAP_SYNC needs memory that the platform declares to need no flush.
provide pages=1 dimm=0 size=$((128 << 20))
mkdir -p $MNT
for type in ext4 xfs; do
	case $type in
	ext4) mkfs.ext4 -q -F -b 4096 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "/dev/$DISK" ;;
	xfs)
		modprobe xfs
		echo 30000 >/proc/sys/fs/xfs/xfssyncd_centisecs
		mkfs.xfs -q -f -K --unsupported "/dev/$DISK"
		;;
	esac
	for dax in never always; do
		mount "/dev/$DISK" $MNT
		truncate -s 1M $MNT/file
		umount $MNT
		test_counts $type $dax
	done
done
