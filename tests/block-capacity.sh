#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The capacity of a disk is the size of its data area, without the info block and the struct pages in front of it.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# check_capacity NAME DISK MIB
check_capacity() {
	bytes=$(($3 << 20))
	is "$1: size" "$(blockdev --getsize64 "/dev/$2")" "$bytes"
	check "$1: the last sector is read" pmem-io pread --direct "/dev/$2" --offset $((bytes - 512)) --length 512
	is "$1: nothing follows" "$(pmem-io pread --direct "/dev/$2" --offset "$bytes" --length 512)" 0
}

plan 18
load_driver
check_capacity "NVDIMM without labels" "$(plain_disk)" 32
check_capacity "e820" "$(e820_disk)" 32
check_capacity "a part of an NVDIMM" "$(labelled_disk -m raw -s 32M)" 32
disk=$(labelled_disk -m fsdax -M mem)
check_capacity "fsdax, map in RAM" "$disk" 510
is "pfn device: size" "$(cat "/sys/block/$disk/device/size")" $((510 << 20))
is "pfn device: where the data is" "$(($(cat "/sys/block/$disk/device/resource") % (1 << 30)))" $((2 << 20))
disk=$(labelled_disk -m fsdax -M dev)
# 131072 pages with 64 bytes each, and 8 KiB, rounded up to 2 MiB.
check_capacity "fsdax, map on the device" "$disk" 502
is "pfn device, map on the device: where the data is" "$(($(cat "/sys/block/$disk/device/resource") % (1 << 30)))" $((10 << 20))
