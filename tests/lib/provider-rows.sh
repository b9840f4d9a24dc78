# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# The rows that every test of a provider records.

# The size of the data that is written to a namespace, and to a file.
BYTES=4M
FILE=2M

# record_files NAME FILE…: the contents of these files, with their names.
record_files() {
	files_name=$1
	shift
	record "$files_name" "$(for file in "$@"; do
		[ ! -f "$file" ] || echo "${file##*/}: $(xargs <"$file" 2>&1)"
	done)"
}

# record_bus NAME NAMESPACE: 3 rows: the sysfs attributes of the bus, the region and the namespace.
record_bus() {
	at=$ND/$2
	record_files "$1: bus" "$at/../../provider" "$at/../../commands"
	record_files "$1: region" "$at/../devtype" "$at/../nstype" "$at/../size" "$at/../align" "$at/../mappings" "$at/../read_only" "$at/../numa_node" \
		"$at/../target_node" "$at/../persistence_domain" "$at/../deep_flush" "$at/../available_size" "$at/../badblocks"
	record_files "$1: namespace" "$at/devtype" "$at/nstype" "$at/mode" "$at/size" "$at/sector_size" "$at/force_raw" "$at/holder_class" "$at/numa_node" "$at/target_node"
}

# record_disk NAME DISK: 2 rows: the sysfs attributes of the disk and its queue.
record_disk() {
	at=/sys/block/$2
	record_files "$1: disk" "$at/size" "$at/ro" "$at/removable" "$at/capability" "$at/ext_range" "$at/badblocks" "$at/device/devtype" "$at/device/numa_node" "$at/dax/write_cache"
	record_files "$1: queue" "$at/queue/dax" "$at/queue/fua" "$at/queue/write_cache" "$at/queue/logical_block_size" "$at/queue/physical_block_size" \
		"$at/queue/minimum_io_size" "$at/queue/max_hw_sectors_kb"
}

# check_data NAME DISK: 2 rows: the disk keeps written data.
check_data() {
	check "$1: written" pmem-io fill --direct --length $BYTES "/dev/$2" --seed 7
	check "$1: read" pmem-io verify --direct --length $BYTES "/dev/$2" --seed 7
}

# check_machine_check NAME DISK: 6 rows, on a bus that has commands, but none to clear errors.
check_machine_check() {
	if [ "$DRIVER" != rust_pmem ]; then
		for row in "overwriting does not heal" "a machine check is listed" "a read of it" "a write of it" "switched on, a write repairs it" \
			"nothing is listed then"; do
			skip "$1: $row" "C lists machine checks on memory of the NFIT alone"
		done
		return
	fi
	at=/sys/block/$2
	is "$1: overwriting does not heal" "$(cat "$at/errors/overwrite_heals")" 0
	host mce $(($(cat "$at/device/resource") + (1 << 20))) 12
	check "$1: a machine check is listed" wait_for 60 grep -q '^1048576 4096 machine-check' "$at/device/errors/list"
	check_fails "$1: a read of it" pmem-io pread --direct --offset 1M --length 4K "/dev/$2"
	check_fails "$1: a write of it" pmem-io pwrite --direct --offset 1M --length 4K "/dev/$2"
	echo 1 >"$at/errors/overwrite_heals"
	check "$1: switched on, a write repairs it" pmem-io fill --direct --offset 1M --length 4K "/dev/$2" --seed 7
	is_empty "$1: nothing is listed then" cat "$at/device/errors/list"
}

# check_files NAME DISK: 4 rows: a file system, with DAX if possible, and mappings of a file. Leaves it mounted.
check_files() {
	make_fs ext4 "$2" -O ^has_journal -E lazy_itable_init=1,nodiscard
	record_result "$1: mounted with DAX" try_dax "$2"
	mountpoint -q "$MNT" || mount "/dev/$2" "$MNT"
	fallocate -l $FILE "$MNT/file"
	check "$1: a file is stored to and flushed" pmem-io map-write --durable fsync "$MNT/file" --seed 8
	check "$1: and read" pmem-io verify "$MNT/file" --seed 8
	record_result "$1: MAP_SYNC" pmem-io map-write --sync --durable flush --length 64K "$MNT/file" --seed 8
}

# check_file_after_reload NAME DISK: 1 row: the file of check_files after the driver is reloaded.
check_file_after_reload() {
	# Without DAX, on one processor, the mount is busy for a moment after the process that mapped the file has ended.
	wait_for 60 umount "$MNT"
	unload_driver
	load_driver
	mount_dax "$2" 2>/dev/null || mount "/dev/$2" "$MNT"
	check "$1: its file after the driver was loaded anew" pmem-io verify "$MNT/file" --seed 8
	umount "$MNT"
}

# change_mode PROVIDER NAMESPACE MODE OPTION…: 1 row: ndctl's answer. Sets disk, empty if there is none.
change_mode() {
	provider=$1 namespace=$2
	shift 2
	make_namespace -e "$namespace" -m "$@" >/tmp/provider.json
	record "$provider: $*: ndctl's answer" "$(jq -r '"\(.mode) \(.map) \(.size) \(.blockdev) \(.align) \(.sector_size)"' /tmp/provider.json)"
	disk=$(jq -r '.blockdev // empty' /tmp/provider.json)
}

# check_provider PROVIDER NAMESPACE: 35 rows: raw, fsdax, devdax, and raw again.
check_provider() {
	disk=$(disk_of "$2")
	record "$1: the disk's name" "$disk"
	record_bus "$1" "$2"
	record_disk "$1, raw" "$disk"
	check_data "$1, raw" "$disk"
	check_files "$1, raw" "$disk"
	check_file_after_reload "$1, raw" "$disk"
	for map in mem dev; do
		change_mode "$1" "$2" fsdax -M $map
		record_disk "$1, fsdax, map in $map" "$disk"
		check_files "$1, fsdax, map in $map" "$disk"
		check_file_after_reload "$1, fsdax, map in $map" "$disk"
	done
	change_mode "$1" "$2" devdax
	chardev=$(jq -r '.daxregion.devices[0].chardev' /tmp/provider.json)
	check "$1, devdax: stored to" pmem-io map-write --length $BYTES "/dev/$chardev" --seed 9
	check "$1, devdax: read" pmem-io map-verify --length $BYTES "/dev/$chardev" --seed 9
	change_mode "$1" "$2" raw
	check_data "$1, raw again" "$disk"
}

# check_sector_mode PROVIDER NAMESPACE: 10 rows.
check_sector_mode() {
	change_mode "$1" "$2" sector
	record_disk "$1, sector" "$disk"
	check_data "$1, sector" "$disk"
	check_files "$1, sector" "$disk"
	check_file_after_reload "$1, sector" "$disk"
}
