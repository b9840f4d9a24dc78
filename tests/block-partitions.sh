#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Partitions appear when the table is written and when the driver loads; each maps to its part of the disk.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# Direct I/O, because a partition and its disk have separate page caches.
partition_sizes() {
	cat "/sys/block/$disk/${disk}p"?/size | tr '\n' ' '
}

# check_place NUMBER: the megabyte at the start sector of the partition, read through the disk.
check_place() {
	start=$(($(cat "/sys/block/$disk/${disk}p$1/start") * 512))
	dd if="/dev/$disk" bs=1M count=1 iflag=direct,skip_bytes skip=$start status=none >/tmp/block-partitions.shown
	pmem-io verify --seed "$1" /tmp/block-partitions.shown
}

cleanup() {
	wipefs -aq "/dev/$disk"
	partx -d "/dev/$disk" 2>/dev/null
	rm -f /tmp/block-partitions.*
}

plan 8
load_driver
disk=$(plain_disk)
printf 'start=2048, size=16384\nstart=18439, size=8193\n' | sfdisk -q --label dos "/dev/$disk"
is "both are there" "$(partition_sizes)" "16384 8193 "

pmem-io fill --direct --length 1M --seed 1 "/dev/${disk}p1"
pmem-io fill --direct --length 1M --seed 2 "/dev/${disk}p2"
check "the first is at its place in the disk" check_place 1
check "the second, at an odd sector, too" check_place 2

check_fails "a write can't follow the first" pmem-io pwrite --direct "/dev/${disk}p1" --offset $((16384 * 512)) --length 512
is "a write across its end is cut" "$(pmem-io pwrite --direct "/dev/${disk}p1" --offset $((16384 * 512 - 512)) --length 8192)" 512
check "the second is untouched" check_place 2

unload_driver
check_fails "without the driver there is none" test -e "/dev/${disk}p1"
load_driver
is "loaded again, both are there" "$(partition_sizes)" "16384 8193 "
