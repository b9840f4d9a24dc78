#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A label with a sector size of 4096 bytes yields a disk with 4096-byte sectors, and one with 512 bytes 512-byte
# sectors.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"

plan 6
load_driver
disk=$(labelled_disk -m raw -s 32M -l 4096)
is "4096: logical block size" "$(cat "/sys/block/$disk/queue/logical_block_size")" 4096
is "4096: a sector is written" "$(pmem-io pwrite --direct "/dev/$disk" --offset 12288 --length 4096)" 4096
check_fails "4096: less is refused" pmem-io pwrite --direct "/dev/$disk" --offset 4096 --length 512
is "4096: the size is the same" "$(blockdev --getsize64 "/dev/$disk")" $((32 << 20))
disk=$(labelled_disk -m raw -s 32M -l 512)
is "512: logical block size" "$(cat "/sys/block/$disk/queue/logical_block_size")" 512
is "512: a sector is written" "$(pmem-io pwrite --direct "/dev/$disk" --offset 1536 --length 512)" 512
