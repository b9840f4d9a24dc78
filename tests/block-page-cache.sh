#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Unaligned buffered writes reach their place, and direct reads see them after a sync.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

plan 4
load_driver
disk=$(plain_disk)
check "odd pieces, buffered" pmem-io fill --block 999 --length 1M "/dev/$disk"
check "a direct read sees them" pmem-io verify --direct --length 1M "/dev/$disk"
check "written directly" pmem-io fill --direct --seed 2 --length 1M "/dev/$disk"
check "a buffered read sees that" pmem-io verify --seed 2 --block 777 --length 1M "/dev/$disk"
