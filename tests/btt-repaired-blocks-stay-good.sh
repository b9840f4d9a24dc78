#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Blocks that a BTT has repaired stay good when it is bound again, with and without a clear-error command.
# quick
# vm: provider
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# test_repaired NAME: the disk's blocks have been written since one was bad, so that the BTT has used that one again.
test_repaired() {
	check "$1: all of it is written again" pmem-io fill --direct --length 4M "/dev/$disk" --seed 2
	check "$1: and once more" pmem-io fill --direct --length 4M "/dev/$disk" --seed 3
	check "$1: and read" pmem-io verify --direct --length 4M "/dev/$disk" --seed 3
	if [ "$DRIVER" = rust_pmem ]; then
		is_empty "$1: nothing is listed" cat "/sys/block/$disk/device/errors/list"
	else
		skip "$1: nothing is listed" "C has no errors/list"
	fi
	rebind "$(device_of_disk "$disk")"
	disk=$(disk_of "$NAMESPACE")
	check "$1: bound again, it is read" pmem-io verify --direct --length 4M "/dev/$disk" --seed 3
}

# each_other COMMAND…: runs it for every other one of 160 blocks from 2 MiB on, with the block's offset as last argument.
each_other() {
	block=512
	while [ $block -lt 672 ]; do
		"$@" $((block * 4096)) || return
		block=$((block + 2))
	done
}

# make_disk PARAMETER=VALUE…: a disk in sector mode whose block N, from the second on, is at N * 4 KiB of the memory.
make_disk() {
	provider_cleanup
	provide dimm=0 "$@"
	disk=$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)
	pmem-io fill --direct --length 4M "/dev/$disk"
}

# test_holes NAME: a write goes to the block that the one before has freed.
test_holes() {
	provider bad 2M+640K
	check_fails "$1: they are bad" pmem-io pread --direct --length 4K --offset 2M "/dev/$disk"
	check "$1: every other bad block is written" each_other pmem-io pwrite --direct --length 4K "/dev/$disk" --offset
	check "$1: and read" each_other pmem-io pread --direct --length 4K "/dev/$disk" --offset
	rebind "$(device_of_disk "$disk")"
	disk=$(disk_of "$NAMESPACE")
	check "$1: bound again, they are read" each_other pmem-io pread --direct --length 4K "/dev/$disk" --offset
}

# make_disk_with_bad_blocks COUNT: on a bus without commands, every other block from the 64th on, 50 in each report.
make_disk_with_bad_blocks() {
	make_disk commands=0
	block=64
	while [ $block -lt $((64 + 2 * $1)) ]; do
		provider bad "$(seq -f '%.0f+4K' -s , $((block * 4096)) 8192 $(((block + 99) * 4096)))"
		block=$((block + 100))
	done
	rebind "$(device_of_disk "$disk")"
	disk=$(disk_of "$NAMESPACE")
	if [ "$DRIVER" = rust_pmem ]; then
		is "$1 blocks, without commands: bound again, all are listed" "$(wc -l <"/sys/block/$disk/device/errors/list")" "$1"
	else
		skip "$1 blocks, without commands: bound again, all are listed" "C has no errors/list"
	fi
}

plan 31
make_disk
provider bad 2M+4K
check_fails "with the clear-error command: a bad block can't be read" pmem-io pread --direct --length 4M "/dev/$disk"
test_repaired "with the clear-error command"
make_disk commands=0
provider bad 2M+4K
check_fails "without commands: a bad block can't be read" pmem-io pread --direct --length 4M "/dev/$disk"
test_repaired "without commands"
make_disk
test_holes "holes, with the clear-error command"
make_disk commands=0
test_holes "holes, without commands"
# More than the table may have of the driver.
make_disk_with_bad_blocks 400
test_repaired "400 blocks, without commands"
# More than the table has room for, so that it does not show which of them the BTT has repaired.
make_disk_with_bad_blocks 600
# The end of the data and the start of the map, which is written when the BTT is made.
provider_cleanup
provide dimm=0 commands=0 bad=65408K+64K
disk=$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)
check "made over bad blocks: it is written" pmem-io fill --direct --length 4M "/dev/$disk"
check "made over bad blocks: and read" pmem-io verify --direct --length 4M "/dev/$disk"
check "made over bad blocks: bound again" rebind "$(device_of_disk "$disk")"
disk=$(disk_of "$NAMESPACE") || disk=none
check "made over bad blocks: bound again, it is read" pmem-io verify --direct --length 4M "/dev/$disk"
