# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the tests of providers share: the same rows for each of them.

# The size of what is written to a namespace, and of a file.
BYTES=4M
FILE=2M

# shows NAME FILE…: what stands in these, with their names.
shows() {
	shows_name=$1
	shift
	seen "$shows_name" "$(for file in "$@"; do
		[ ! -f "$file" ] || echo "${file##*/}: $(xargs <"$file" 2>&1)"
	done)"
}

# bus NAME NAMESPACE: 3 rows: what sysfs says of the bus, the region and the namespace.
bus() {
	at=$ND/$2
	shows "$1: bus" "$at/../../provider" "$at/../../commands"
	shows "$1: region" "$at/../devtype" "$at/../nstype" "$at/../size" "$at/../align" "$at/../mappings" "$at/../read_only" "$at/../numa_node" \
		"$at/../target_node" "$at/../persistence_domain" "$at/../deep_flush" "$at/../available_size" "$at/../badblocks"
	shows "$1: namespace" "$at/devtype" "$at/nstype" "$at/mode" "$at/size" "$at/sector_size" "$at/force_raw" "$at/holder_class" "$at/numa_node" "$at/target_node"
}

# disk NAME DISK: 2 rows: what its files say.
disk() {
	at=/sys/block/$2
	shows "$1: disk" "$at/size" "$at/ro" "$at/removable" "$at/capability" "$at/ext_range" "$at/badblocks" "$at/device/devtype" "$at/device/numa_node" "$at/dax/write_cache"
	shows "$1: queue" "$at/queue/dax" "$at/queue/fua" "$at/queue/write_cache" "$at/queue/logical_block_size" "$at/queue/physical_block_size" \
		"$at/queue/minimum_io_size" "$at/queue/max_hw_sectors_kb"
}

# keeps NAME DISK: 2 rows.
keeps() {
	check "$1: written" pmem-io fill --direct --length $BYTES "/dev/$2" --seed 7
	check "$1: read" pmem-io verify --direct --length $BYTES "/dev/$2" --seed 7
}

# files NAME DISK: 4 rows: a file system with DAX, where it can be, and what a file of it can; left mounted.
files() {
	make_fs ext4 "$2" -O ^has_journal -E lazy_itable_init=1,nodiscard
	answers "$1: mounted with DAX" try_dax "$2"
	mountpoint -q $MNT || mount "/dev/$2" $MNT
	fallocate -l $FILE $MNT/file
	check "$1: a file is stored to and flushed" pmem-io map-write --durable fsync $MNT/file --seed 8
	check "$1: and read" pmem-io verify $MNT/file --seed 8
	answers "$1: MAP_SYNC" pmem-io map-write --sync --durable flush --length 64K $MNT/file --seed 8
}

# again NAME DISK: 1 row: the file system of `files` under the driver that is loaded anew.
again() {
	umount $MNT
	unload_driver
	load_driver
	mount_dax "$2" 2>/dev/null || mount "/dev/$2" $MNT
	check "$1: its file after the driver was loaded anew" pmem-io verify $MNT/file --seed 8
	umount $MNT
}

# becomes PROVIDER NAMESPACE MODE OPTION…: 1 row; its disk, if it has one then.
becomes() {
	provider=$1 namespace=$2
	shift 2
	make_namespace -e "$namespace" -m "$@" >/tmp/provider.json
	seen "$provider: $*: told" "$(jq -r '"\(.mode) \(.map) \(.size) \(.blockdev) \(.align) \(.sector_size)"' /tmp/provider.json)"
	disk=$(jq -r '.blockdev // empty' /tmp/provider.json)
}

# serves PROVIDER NAMESPACE: 35 rows: raw, fsdax, devdax, and raw again.
serves() {
	disk=$(disk_of "$2")
	seen "$1: the disk's name" "$disk"
	bus "$1" "$2"
	disk "$1, raw" "$disk"
	keeps "$1, raw" "$disk"
	files "$1, raw" "$disk"
	again "$1, raw" "$disk"
	for map in mem dev; do
		becomes "$1" "$2" fsdax -M $map
		disk "$1, fsdax, map in $map" "$disk"
		files "$1, fsdax, map in $map" "$disk"
		again "$1, fsdax, map in $map" "$disk"
	done
	becomes "$1" "$2" devdax
	chardev=$(jq -r '.daxregion.devices[0].chardev' /tmp/provider.json)
	check "$1, devdax: stored to" pmem-io map-write --length $BYTES "/dev/$chardev" --seed 9
	check "$1, devdax: read" pmem-io map-verify --length $BYTES "/dev/$chardev" --seed 9
	becomes "$1" "$2" raw
	keeps "$1, raw again" "$disk"
}

# serves_sectors PROVIDER NAMESPACE: 10 rows.
serves_sectors() {
	becomes "$1" "$2" sector
	disk "$1, sector" "$disk"
	keeps "$1, sector" "$disk"
	files "$1, sector" "$disk"
	again "$1, sector" "$disk"
}
