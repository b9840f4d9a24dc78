#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# BLKZEROOUT zeroes exactly the given range; BLKDISCARD fails and changes nothing.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

tmp=/tmp/block-zeroout-range

# zero_range OFFSET BYTES: zeroes the range of the disk and of the image.
zero_range() {
	check "zeroing $2 bytes from $1" blkdiscard -f -z -o "$1" -l "$2" "/dev/$disk"
	fallocate -p -o "$1" -l "$2" $tmp.image
}

cleanup() {
	rm -f $tmp.*
}

plan 8
load_driver
disk=$(plain_disk)
truncate -s 4M $tmp.image
pmem-io fill $tmp.image
pmem-io fill --direct --length 4M "/dev/$disk"
zero_range 4096 4096
zero_range 10240 512
zero_range 65024 8192
zero_range 1048576 2097152
check "zeroes there, and nowhere else" cmp -n 4194304 $tmp.image "/dev/$disk"
is "discard is refused" "$(blkdiscard -f -o 0 -l 4096 "/dev/$disk" 2>&1 | grep -o 'Operation not supported')" "Operation not supported"
check_fails "secure discard is refused" blkdiscard -f -s -o 0 -l 4096 "/dev/$disk"
check "nothing has changed" cmp -n 4194304 $tmp.image "/dev/$disk"
