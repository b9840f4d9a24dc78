#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An fsdax namespace has the requested memmap place and alignment, is usable, and is found again unchanged.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# show_namespace: the attributes that ndctl shows.
show_namespace() {
	ndctl list -N -n "$namespace" | jq -r '.[0] | "\(.mode) \(.map) \(.align) \(.blockdev)"'
}

# test_fsdax MAP ALIGN
test_fsdax() {
	disk=$(labelled_disk -m fsdax -M "$1" -a "$2" -s 32M)
	namespace=$(jq -r .dev /tmp/labelled_disk.json)
	is "$1, $2: is what was asked for" "$(show_namespace)" "fsdax $1 $2 $disk"
	make_fs ext4 "$disk"
	mount_dax "$disk"
	fallocate -l 64K $MNT/file
	check "$1, $2: a file is stored to" pmem-io map-write --sync --durable flush $MNT/file
	umount $MNT
	unload_driver
	reset_regions
	load_driver
	is "$1, $2: is what it was" "$(show_namespace)" "fsdax $1 $2 $disk"
	mount_dax "$disk"
	check "$1, $2: the file is there" pmem-io map-verify $MNT/file
	umount $MNT
}

plan 16
load_driver
for map in mem dev; do
	test_fsdax $map 4096
	if kernel_has transparent_hugepage; then
		test_fsdax $map 2097152
	else
		for number in 1 2 3 4; do
			skip "$map, 2097152: $number" "this kernel has no huge pages"
		done
	fi
done
