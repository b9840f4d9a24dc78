#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks in a mapped file while its disk is unbound under the mounted file system crash nothing, and each is listed.
#
# XFS drops the pages of a file while a process may map them anew, with any driver: fs/dax.c then finds them in use.
# vm: labels 2
# timeout: 300
# expect-splat: WARN() < xfs_dax_failure_fn
. "$(dirname "$0")/lib/test.sh"

# In each round, the next pages of the file fail.
STRIDE=65536 ROUNDS=6 PAGES=4
SIZE=$((ROUNDS * PAGES * STRIDE))

cleanup() {
	kill -9 "$mapper" 2>/dev/null
	wait
	umount $MNT 2>/dev/null
	for disk in /sys/block/pmem*; do
		forget_errors "${disk##*/}"
	done
	unload_driver
	rm -f /tmp/mapper
}

# is_mapped: the process has read all of its mapping.
is_mapped() {
	grep -q '^verify: ' /tmp/mapper
}

# address_of PAGE: the address of a page of the file that fails.
address_of() {
	echo $(($(pmem-io phys $MNT/file --offset $(($1 * STRIDE)))))
}

# are_listed COUNT: so many of these pages are in the disk's badblocks. Prints the others.
are_listed() {
	are_unlisted=
	for are_address in $(echo "$addresses" | head -n "$1"); do
		grep -q "^$(((are_address - base) / 512)) 8$" "/sys/block/$disk/badblocks" || are_unlisted="$are_unlisted $are_address"
	done
	echo "not listed:${are_unlisted:- none}"
	[ -z "$are_unlisted" ]
}

# bind_again: binds the disk, once nobody uses its pages any more.
bind_again() {
	echo "$device" 2>/dev/null >"/sys/bus/nd/drivers/$DRIVER/bind" && disk=$(disk_of "$namespace")
} 2>/dev/null

# test_round NUMBER: while a process reads the mapped file, pages fail and the disk is unbound, later in each round.
test_round() {
	mount_dax "$disk" || return
	: >/tmp/mapper
	pmem-io map $MNT/file --length $SIZE --populate --seconds 600 verify >/tmp/mapper 2>&1 &
	mapper=$!
	wait_for 60 is_mapped || return
	for address in $(echo "$addresses" | tail -n +$(($1 * PAGES + 1)) | head -n $PAGES); do
		host mce "$address"
		sleep 0.1
	done &
	injector=$!
	sleep "0.$1"
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	wait $injector
	kill -9 "$mapper"
	wait "$mapper" 2>/dev/null || :
	umount $MNT
	wait_for 60 bind_again || {
		echo "round $1: it is not bound"
		return 1
	}
	wait_for 60 are_listed $((($1 + 1) * PAGES)) >/tmp/unlisted || {
		echo "round $1: $(tail -n 1 /tmp/unlisted)"
		return 1
	}
}

all_rounds() {
	for round in $(seq 0 $((ROUNDS - 1))); do
		test_round "$round" || return
	done
}

[ "$DRIVER" = rust_pmem ] || skip_all "with the C driver the struct pages go away under the process, and munmap oopses"
need pmem-io xfs_repair
mapper=
plan 12
load_driver
fresh_labels
for type in ext4 xfs; do
	disk=$(make_namespace -r "$(labelled_region)" -m fsdax -M mem -s 192M | jq -r .blockdev)
	device=$(device_of_disk "$disk")
	namespace=$(cat "$ND/$device/namespace")
	base=$(($(cat "$ND/$device/resource")))
	case $type in
	ext4) make_fs ext4 "$disk" ;;
	xfs) make_xfs_of_one_group "$disk" ;;
	esac
	mount_dax "$disk"
	for name in file bystander; do
		fallocate -l $SIZE $MNT/$name
		pmem-io map-write $MNT/$name --durable fsync
	done
	sync
	addresses=$(for page in $(seq 0 $((ROUNDS * PAGES - 1))); do address_of "$page"; done)
	umount $MNT
	check "$type: each is listed after the next bind" all_rounds
	is "$type: no more is listed" "$(wc -l <"/sys/block/$disk/badblocks")" $((ROUNDS * PAGES))
	mount_dax "$disk"
	check "$type: the other file is as it was" pmem-io map-verify $MNT/bystander
	echo 1 >"/sys/block/$disk/errors/overwrite_heals"
	check "$type: the file is written and read" sh -c "pmem-io fill $MNT/file --seed 2 && pmem-io map-verify $MNT/file --seed 2"
	umount $MNT
	is_empty "$type: nothing is listed" cat "/sys/block/$disk/badblocks"
	check "$type: the file system is intact" fs_is_whole $type "$disk"
done
