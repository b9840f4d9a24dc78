#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After a power cut, data that was stored through MAP_SYNC and flushed in user space is there, and so is fsynced data.
#
# No system call follows the stores. The file systems are consistent.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	[ "$STAGE" = 1 ] || umount "$MNT" 2>/dev/null
}

# store_files TYPE DISK FILE…: stores these files in this order, so that nothing but its own flush made the last one
# durable. Leaves the file system mounted.
store_files() {
	make_fs "$1" "$2"
	MNT=/tmp/mnt.$1
	mount_dax "$2"
	name=$1
	shift 2
	for file in "$@"; do
		# The stores allocate the blocks.
		truncate -s 256K "$MNT/$file"
		case $file in
		stored) check "$name: stored and flushed" pmem-io map-write --sync --durable flush "$MNT/stored" --seed 1 ;;
		synced) check "$name: stored and synced" pmem-io map-write --durable fsync "$MNT/synced" --seed 2 ;;
		written) check "$name: written and synced" pmem-io fill --direct "$MNT/written" --seed 3 ;;
		esac
	done
}

# check_files TYPE DISK
check_files() {
	[ "$1" != xfs ] || modprobe xfs
	check "$1: mounted" mount_dax "$2"
	check "$1: what was stored and flushed" pmem-io map-verify "$MNT/stored" --seed 1
	check "$1: what was stored and synced" pmem-io verify "$MNT/synced" --seed 2
	check "$1: what was written and synced" pmem-io verify "$MNT/written" --seed 3
	umount "$MNT"
	check "$1: fsck" fs_is_whole "$1" "$2"
}

# disk_with_map MAP: the disk with its struct pages there.
disk_with_map() {
	ndctl list -N -m fsdax -r "$(labelled_region)" | jq -r ".[] | select(.map == \"$1\").blockdev"
}

case $STAGE in
1)
	plan 6
	load_driver
	labelled_disk -m fsdax -M mem -s 128M >/dev/null
	make_namespace -r "$(labelled_region)" -m fsdax -M dev -s 384M >/dev/null
	store_files ext4 "$(disk_with_map mem)" written synced stored
	store_files xfs "$(disk_with_map dev)" written stored synced
	host powercut
	;;
2)
	plan 10
	need e2fsck xfs_repair
	load_driver
	check_files ext4 "$(disk_with_map mem)"
	check_files xfs "$(disk_with_map dev)"
	;;
esac
