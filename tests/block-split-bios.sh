#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Bios that device mapper splits and remaps, at any sector and within a page or a segment, keep the data intact.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"

tmp=/tmp/block-split-bios
new=/dev/mapper/pieces

cleanup() {
	dmsetup remove pieces
	rm -f $tmp.*
}

plan 5
need dmsetup fio
modprobe dm-mod
load_driver
disk=$(plain_disk)
# The pieces of the disk in another order: the sector in the new device, the length, the sector in the disk.
while read -r start sectors at; do
	printf '%d %d linear /dev/%s %d\n' "$start" "$sectors" "$disk" "$at"
done >$tmp.table <<'TABLE'
0 3 4096
3 13 9
16 1 8191
17 4079 10001
TABLE
check "four pieces make a disk" dmsetup create pieces $tmp.table
dmsetup mknodes
check "it is written" pmem-io fill --direct --block 192K $new
check "and read" pmem-io verify --direct --block 64K --misalign 512 $new
while read -r _ sectors _ _ at; do
	dd if="/dev/$disk" bs=512 skip="$at" count="$sectors" iflag=direct status=none
done <$tmp.table >$tmp.read
check "each piece is where it belongs in the disk" pmem-io verify $tmp.read
check "random sizes through it" fio --name=job --filename=$new --size=2M --rw=randwrite --bsrange=512-64k --blockalign=512 \
	--direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal
