#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# dm-writecache with pmem as the cache keeps its data over a reload of the driver, and a flush writes it to the slow
# disk.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

need dmsetup fio
cleanup() {
	umount $MNT 2>/dev/null
	dmsetup remove_all --noudevsync --noudevrules
	rmmod brd
} 2>/dev/null

# create_cache TYPE: p for DAX mode, s for bio mode.
create_cache() {
	dm_create cached "0 $(sector_count ram0) writecache $1 /dev/ram0 /dev/$disk 4096 0"
}

# count_dirty: the number of blocks that only the cache has.
count_dirty() {
	dmsetup status cached | awk '{ print $5 - $6 - $7 }'
}

plan 20
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 64M)
load_brd 48
for type in p s; do
	clean_disk "$disk"
	check "$type: made" create_cache $type
	record "$type: queue" "$(queue_attributes mapper/cached dax write_cache fua logical_block_size)"
	check_disk "$type" mapper/cached
	pmem-io fill /dev/mapper/cached --length 8M --seed 3
	check "$type: not all of it is on the slow disk" test "$(count_dirty)" -gt 0
	dm_remove cached
	reload_driver
	# The superblock identifies a cache that is not clean.
	create_cache $type
	check "$type: the driver was away: what was written is there" pmem-io verify /dev/mapper/cached --length 8M --seed 3
	dmsetup message cached 0 flush
	check "$type: flushed, the slow disk has it" pmem-io verify --direct /dev/ram0 --length 8M --seed 3
	dm_remove cached
done
