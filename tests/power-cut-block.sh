#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After a power cut, all data that a block device acknowledged as durable is there, in raw, fsdax and sector mode.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

case $STAGE in
1)
	plan 5
	load_driver
	fsdax=$(labelled_disk -m fsdax -M dev -s 64M)
	sector=$(make_namespace -r "$(labelled_region)" -m sector -s 32M -l 4096 | jq -r .blockdev)
	raw=$(plain_disk)
	# Keep the disks open: the last close would sync them.
	exec 7<"/dev/$raw" 8<"/dev/$fsdax"
	check "raw, O_DIRECT and fsync" pmem-io fill --direct --length 4M --block 60K "/dev/$raw" --seed 1
	check "raw, O_DSYNC" dd if="/dev/$raw" of="/dev/$raw" bs=64k count=16 skip=0 seek=256 oflag=direct,dsync iflag=direct
	check "raw, by the page cache, and fsync" pmem-io fill --offset 8M --length 4M "/dev/$raw" --seed 2
	check "fsdax, by the page cache, and fsync" pmem-io fill --length 4M "/dev/$fsdax" --seed 3
	check "sector, O_DIRECT and fsync" pmem-io fill --direct --length 4M "/dev/$sector" --seed 4
	host powercut
	;;
2)
	plan 5
	load_driver
	raw=$(plain_disk)
	check "raw, O_DIRECT and fsync: there" pmem-io verify --length 4M "/dev/$raw" --seed 1
	check "raw, by the page cache, and fsync: there" pmem-io verify --offset 8M --length 4M "/dev/$raw" --seed 2
	check "raw, O_DSYNC: there" cmp -n 1048576 -i 0:16777216 "/dev/$raw" "/dev/$raw"
	check "fsdax: there" pmem-io verify --length 4M "/dev/$(ndctl list -N -m fsdax -r "$(labelled_region)" | jq -r '.[0].blockdev')" --seed 3
	check "sector: there" pmem-io verify --length 4M "/dev/$(ndctl list -N -m sector | jq -r '.[0].blockdev')" --seed 4
	;;
esac
