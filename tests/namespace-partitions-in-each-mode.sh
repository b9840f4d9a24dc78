#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Partitions work in each mode: names, sizes, discovery after a reload, and DAX if they begin at a page.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	wipefs -aq -f "/dev/$disk"
	partx -d "/dev/$disk" 2>/dev/null
}

# list_nodes: the disk and its partitions, with their sectors.
list_nodes() {
	for node in /sys/class/block/"$disk" /sys/class/block/"$disk"p[0-9]* /sys/class/block/"$disk"[0-9]*; do
		[ ! -e "$node" ] || echo "${node##*/} $(cat "$node/start" 2>/dev/null || echo -) $(cat "$node/size") $(cat "$node/ro")"
	done
}

# partition_name NUMBER: a disk name that ends in a letter has no p before the number.
partition_name() {
	for partition in "$disk"p"$1" "$disk$1"; do
		[ ! -e "/dev/$partition" ] || echo "$partition"
	done
}

# test_partitions NAME: a table with a partition that is aligned to 2 MiB, and one that begins within a page.
test_partitions() {
	printf 'label: gpt\nstart=2MiB, size=8MiB\nstart=10MiB, size=8MiB\n' >/tmp/namespace-partitions-in-each-mode.table
	[ "$(cat "/sys/block/$disk/queue/logical_block_size")" -eq 4096 ] || sed -i '3s/.*/start=20481, size=16384/' /tmp/namespace-partitions-in-each-mode.table
	record_result "$1: partitions are made" sfdisk -q --no-tell-kernel "/dev/$disk" </tmp/namespace-partitions-in-each-mode.table
	rm /tmp/namespace-partitions-in-each-mode.table
	record_result "$1: and read" blockdev --rereadpt "/dev/$disk"
	record "$1: nodes" "$(list_nodes)"
	one=$(partition_name 1)
	two=$(partition_name 2)
	check "$1: the first is written" pmem-io fill --direct "/dev/$one" --seed 1
	check "$1: the second is written" pmem-io fill --direct "/dev/$two" --seed 2
	check "$1: the first is read" pmem-io verify --direct "/dev/$one" --seed 1
	record_result "$1: beyond the end of the first" pmem-io pread --direct --offset 8M --length 4096 "/dev/$one"
	record_result "$1: the table is read while one is held" sh -c "exec 9<\"/dev/$one\"; blockdev --rereadpt \"/dev/$disk\" 2>&1"
	unload_driver
	is "$1: without the driver, no nodes" "$(cd /dev && echo "$disk"*)" "$disk*"
	load_driver
	record "$1: found again, nodes" "$(list_nodes)"
	check "$1: found again, the first" pmem-io verify --direct "/dev/$one" --seed 1
	check "$1: found again, the second" pmem-io verify --direct "/dev/$two" --seed 2
}

# test_dax NAME PARTITION: tries to mount it with DAX.
test_dax() {
	make_fs ext4 "$2" -O ^has_journal
	record_result "$1: mounted with DAX" try_dax "$2"
	if mountpoint -q $MNT; then
		fallocate -l 2M $MNT/file
		check "$1: a file is stored to" pmem-io map-write --sync --durable flush $MNT/file
		umount $MNT
	else
		record_result "$1: mounted without" mount "/dev/$2" $MNT
		umount $MNT
	fi
}

need sfdisk
plan 70
load_driver
mkdir -p $MNT
disk=$(labelled_disk -m fsdax -M mem -s 32M)
test_partitions fsdax
test_dax "fsdax, the first" "$one"
test_dax "fsdax, the second" "$two"
disk=$(labelled_disk -m raw -s 32M)
test_partitions raw
test_dax "raw, the first" "$one"
disk=$(labelled_disk -m sector -s 32M -l 512)
test_partitions "sector 512"
test_dax "sector 512, the first" "$one"
disk=$(labelled_disk -m sector -s 32M -l 4096)
test_partitions "sector 4096"
disk=$(e820_disk)
test_partitions e820
test_dax "e820, the first" "$one"
