#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A power cut: what was stored to a MAP_SYNC mapping and flushed from user space is there afterwards, with no call of the kernel
# in between, and so is what was fsync'ed; the file systems are whole. ext4 and XFS.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/../lib.sh"

cleanup() {
	[ "$STAGE" = 1 ] || umount "$MNT" 2>/dev/null
}

# stores TYPE DISK: leaves it mounted.
stores() {
	make_fs "$1" "$2"
	MNT=/tmp/mnt.$1
	mount_dax "$2"
	# Its blocks are allocated by the stores themselves.
	truncate -s 256K "$MNT/stored"
	check "$1: stored and flushed" pmem-io map-write --sync --durable flush "$MNT/stored" --seed 1
	truncate -s 2M "$MNT/synced"
	check "$1: stored and synced" pmem-io map-write --durable fsync "$MNT/synced" --seed 2
	truncate -s 2M "$MNT/written" "$MNT/unsynced"
	check "$1: written and synced" pmem-io fill --direct "$MNT/written" --seed 3
	# This one may be lost.
	pmem-io fill --no-sync "$MNT/unsynced" --seed 4
}

# shows TYPE DISK
shows() {
	[ "$1" != xfs ] || modprobe xfs
	check "$1: mounted" mount_dax "$2"
	check "$1: what was stored and flushed" pmem-io map-verify "$MNT/stored" --seed 1
	check "$1: what was stored and synced" pmem-io verify "$MNT/synced" --seed 2
	check "$1: what was written and synced" pmem-io verify "$MNT/written" --seed 3
	umount "$MNT"
	case $1 in
	ext4) check "$1: fsck" e2fsck -fn "/dev/$2" ;;
	xfs) check "$1: fsck" xfs_repair -n "/dev/$2" ;;
	esac
}

# by_map MAP: the disk with its page map there.
by_map() {
	ndctl list -N -m fsdax -r "$(labelled_region)" | jq -r ".[] | select(.map == \"$1\").blockdev"
}

case $STAGE in
1)
	plan 6
	load_driver
	labelled_disk -m fsdax -M mem -s 128M >/dev/null
	make_namespace -r "$(labelled_region)" -m fsdax -M dev -s 368M >/dev/null
	stores ext4 "$(by_map mem)"
	stores xfs "$(by_map dev)"
	host powercut
	;;
2)
	plan 10
	need e2fsck xfs_repair
	load_driver
	shows ext4 "$(by_map mem)"
	shows xfs "$(by_map dev)"
	;;
esac
