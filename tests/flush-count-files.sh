#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# How often the region is flushed by what a program does to a file of ext4 or XFS, with DAX and without; after each, all is on the
# disk when the driver was away.
# compare
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/flush-count.sh"

need python3 mkfs.xfs
cleanup() {
	umount $MNT 2>/dev/null
	provider_cleanup
}

# counts TYPE DAX: 10 subtests.
counts() {
	name="$1, dax=$2"
	mount -o "dax=$2,noatime" "/dev/$DISK" $MNT
	# All blocks are there, so that only what is said is written.
	pmem-io fill $MNT/file
	sync
	record "$name: overwritten and fsync" "$(quiet && count_flushes file_io $MNT/file cached write:4096 fsync)"
	record "$name: overwritten and fdatasync" "$(quiet && count_flushes file_io $MNT/file cached write:4096 fdatasync)"
	record "$name: overwritten with O_DIRECT and fdatasync" "$(quiet && count_flushes file_io $MNT/file direct write:4096 fdatasync)"
	record "$name: overwritten with O_DIRECT and RWF_DSYNC" "$(quiet && count_flushes file_io $MNT/file direct dsync:4096)"
	record "$name: overwritten with RWF_DSYNC" "$(quiet && count_flushes file_io $MNT/file cached dsync:4096)"
	record "$name: a mapping and msync" "$(quiet && count_flushes pmem-io map-write $MNT/file --durable msync --seed 2)"
	record "$name: fsync with nothing to do" "$(quiet && count_flushes file_io $MNT/file cached fsync)"
	case $2 in
	always) record "$name: MAP_SYNC, flushed by the program" "$(quiet && count_flushes pmem-io map-write $MNT/file --sync --durable flush --seed 3)" ;;
	*) check_fails "$name: MAP_SYNC" pmem-io map-write $MNT/file --sync ;;
	esac
	pmem-io fill $MNT/file --seed 4
	check "$name: umount flushes" test "$(count_flushes umount $MNT)" -ge 1
	mount -o "dax=$2,noatime" "/dev/$DISK" $MNT
	check "$name: it is there" pmem-io verify $MNT/file --seed 4
	umount $MNT
}

# quiet: what the file system still has to write of the preparations is written.
quiet() {
	sync
	sync
}

plan 40
# MAP_SYNC wants memory that is said to need no flush.
provide pages=1 dimm=0 size=$((128 << 20))
mkdir -p $MNT
for type in ext4 xfs; do
	case $type in
	ext4) mkfs.ext4 -q -F -b 4096 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "/dev/$DISK" ;;
	xfs) modprobe xfs && echo 30000 >/proc/sys/fs/xfs/xfssyncd_centisecs && mkfs.xfs -q -f -K --unsupported "/dev/$DISK" ;;
	esac
	for dax in never always; do
		mount "/dev/$DISK" $MNT
		truncate -s 1M $MNT/file
		umount $MNT
		counts $type $dax
	done
done
