#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An unbind below a mounted DAX file system in which any one allocation fails loses no synced data, and forgets no error.
# debug
# vm: provider
# timeout: 1800
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"

# test_unbind TYPE: 4 rows: each try leaves a file system that was in use, with a file that was synced and one that was not, and an
# error in neither.
test_unbind() {
	mount_dax "$DISK"
	fallocate -l 4M $MNT/synced
	pmem-io map-write --durable fsync $MNT/synced
	sync $MNT
	umount $MNT
	check_faults "$1: unbind" "(ok|$ERRORS); ok $BAD 4096 log" "write=$UNBIND=$NAMESPACE" --before "run=mount -o dax=always /dev/$DISK $MNT" \
		--before "run=cp $MNT/synced $MNT/new" --before "write=$LIST=drop $BAD 4096" --before "write=$LIST=add $BAD 4096" \
		--then "run=$AFTER"
	check "$1: the file is there" mount_dax "$DISK"
	check "$1: with its data" pmem-io verify $MNT/synced
	umount $MNT
	check "$1: the file system is whole" fs_is_whole "$1" "$DISK"
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need_faults
plan 8
BAD=$((60 << 20))
provide size=$((64 << 20)) pages=1
LIST=$ND/$NAMESPACE/errors/list
# An unbind that fails leaves the disk.
AFTER="umount $MNT && { [ -e $LIST ] || echo $NAMESPACE >$BIND; } && mount -o dax=always /dev/$DISK $MNT &&
	pmem-io map-verify $MNT/synced >/dev/null && umount $MNT && sed 's/ user/ log/' $LIST"
make_fs ext4 "$DISK"
test_unbind ext4
make_xfs_of_one_group "$DISK"
test_unbind xfs
