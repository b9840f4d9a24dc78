#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A power cut: what was stored to a MAP_SYNC mapping and flushed from user space is there afterwards, with no call of the kernel
# in between, and so is what was fsync'ed; the file systems are whole.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	[ "$STAGE" = 1 ] || umount "$MNT" 2>/dev/null
}

# stores TYPE DISK FILE…: these, in this order: what comes last was made durable by nothing else. Left mounted.
stores() {
	make_fs "$1" "$2"
	MNT=/tmp/mnt.$1
	mount_dax "$2"
	name=$1
	shift 2
	for file in "$@"; do
		# Blocks are allocated by the stores themselves.
		truncate -s 256K "$MNT/$file"
		case $file in
		stored) check "$name: stored and flushed" pmem-io map-write --sync --durable flush "$MNT/stored" --seed 1 ;;
		synced) check "$name: stored and synced" pmem-io map-write --durable fsync "$MNT/synced" --seed 2 ;;
		written) check "$name: written and synced" pmem-io fill --direct "$MNT/written" --seed 3 ;;
		esac
	done
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
	stores ext4 "$(by_map mem)" written synced stored
	stores xfs "$(by_map dev)" written stored synced
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
