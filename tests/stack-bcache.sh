#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# bcache works with pmem as the writeback cache of a slower disk, and as the backing device of a cache.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

need make-bcache fio
cleanup() {
	umount $MNT 2>/dev/null
	stop_bcache
	rmmod brd
} 2>/dev/null

# all_gone: no cache and no cached disk exists.
all_gone() {
	for bcache_trace in /sys/block/bcache* /sys/fs/bcache/*-*; do
		[ ! -e "$bcache_trace" ] || return
	done
}

stop_bcache() {
	for bcache_stop in /sys/block/bcache*/bcache/stop /sys/fs/bcache/*-*/stop; do
		[ ! -e "$bcache_stop" ] || echo 1 >"$bcache_stop"
	done
	wait_for 30 all_gone
}

register_bcache() {
	echo "/dev/$cache" >/sys/fs/bcache/register
	echo "/dev/$backing" >/sys/fs/bcache/register
	wait_for 30 test -b /dev/bcache0
}

plan 16
load_driver
modprobe bcache
disk=$(labelled_disk -m fsdax -M mem -s 96M)
load_brd 64
for role in cache backing; do
	clean_disk "$disk"
	clean_disk ram0
	case $role in
	cache) cache=$disk backing=ram0 ;;
	backing) cache=ram0 backing=$disk ;;
	esac
	make-bcache --wipe-bcache --writeback --bucket 64k --block 4k -C "/dev/$cache" -B "/dev/$backing" >/dev/null
	check "pmem as $role: registered" register_bcache
	check_disk "pmem as $role" bcache0
	pmem-io fill /dev/bcache0 --length 4M --seed 2
	check "pmem as $role: stopped" stop_bcache
	reload_driver
	# After re-registration the dirty data of the cache still belongs to the backing device.
	register_bcache
	check "pmem as $role: the driver was away: what was written is there" pmem-io verify --direct /dev/bcache0 --length 4M --seed 2
	stop_bcache
	# The stop completes asynchronously, so unloading may have to be repeated.
	reload_driver
done
