#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Write-zeroes is a separate operation of up to 16 MiB, and lets fallocate punch holes into the disk.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

tmp=/tmp/block-write-zeroes

cleanup() {
	rm -f $tmp.*
	# Unloading resets the statistics.
	unload_driver
}

# count_writes: the number of write requests of the disk.
count_writes() {
	awk '{ print $5 }' "/sys/block/$disk/stat"
}

# count_requests COMMAND…: the number of write requests that the command makes.
count_requests() {
	before=$(count_writes)
	"$@" || return
	echo $(($(count_writes) - before))
}

[ "$DRIVER" = rust_pmem ] || skip_all "C is handed zeroes to write, and can't be punched"
plan 5
load_driver
disk=$(e820_disk)
echo 1 >"/sys/block/$disk/queue/iostats"
truncate -s 32M $tmp.image
pmem-io fill $tmp.image
pmem-io fill --direct "/dev/$disk"
is "the most at once" "$(cat "/sys/block/$disk/queue/write_zeroes_max_bytes")" 16777216
is "24 MiB and a sector are two" "$(count_requests blkdiscard -f -z -o 512 -l $((24 * 1048576 + 512)) "/dev/$disk" 2>/dev/null)" 2
check "a page is punched" fallocate -p -o 30M -l 4K "/dev/$disk"
is "the last sector is one" "$(count_requests blkdiscard -f -z -o $((32 * 1048576 - 512)) -l 512 "/dev/$disk" 2>/dev/null)" 1
fallocate -p -o 512 -l $((24 * 1048576 + 512)) $tmp.image
fallocate -p -o 30M -l 4K $tmp.image
fallocate -p -o $((32 * 1048576 - 512)) -l 512 $tmp.image
check "zeroes there, and nowhere else" cmp -n $((32 * 1048576)) $tmp.image "/dev/$disk"
