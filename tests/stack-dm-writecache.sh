#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# dm-writecache: pmem is the cache in front of a slower disk. What was written is there with the cache, when the driver was away
# meanwhile, and on the disk once the cache is flushed.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

need dmsetup fio
cleanup() {
	umount $MNT 2>/dev/null
	dmsetup remove_all --noudevsync --noudevrules
	rmmod brd
} 2>/dev/null

# cache TYPE: p, by its memory; s, by its bios.
cache() {
	dm_create cached "0 $(sector_count ram0) writecache $1 /dev/ram0 /dev/$disk 4096 0"
}

# dirty: blocks that are in the cache alone.
dirty() {
	dmsetup status cached | awk '{ print $5 - $6 - $7 }'
}

plan 20
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 64M)
load_brd 48
for type in p s; do
	clean_disk "$disk"
	check "$type: made" cache $type
	record "$type: queue" "$(queue_attributes mapper/cached dax write_cache fua logical_block_size)"
	check_disk "$type" mapper/cached
	pmem-io fill /dev/mapper/cached --length 8M --seed 3
	check "$type: not all of it is on the slow disk" test "$(dirty)" -gt 0
	dm_remove cached
	reload_driver
	# A cache that is not clean is known by its superblock.
	cache $type
	check "$type: the driver was away: what was written is there" pmem-io verify /dev/mapper/cached --length 8M --seed 3
	dmsetup message cached 0 flush
	check "$type: flushed, the slow disk has it" pmem-io verify --direct /dev/ram0 --length 8M --seed 3
	dm_remove cached
done
