#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# msync and fsync write back each dirty page of a mapping once.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

trace=/sys/kernel/tracing

cleanup() {
	echo 0 >$trace/events/fs_dax/enable
	umount $MNT 2>/dev/null
}

# count_written: the number of pages written back since the last call.
count_written() {
	sed -n 's/.*dax_writeback_one: .* pglen \(0x[0-9a-f]*\).*/\1/p' $trace/trace | {
		sum=0
		while read -r pages; do
			sum=$((sum + pages))
		done
		echo $sum
	}
	echo >$trace/trace
}

plan 8
load_driver
disk=$(labelled_disk -m fsdax -M mem)
make_fs ext4 "$disk"
mount_dax "$disk"
echo 1 >$trace/events/fs_dax/enable
fallocate -l 1M $MNT/file
echo >$trace/trace
check "msync" pmem-io map-write --durable msync $MNT/file
is "msync: all pages" "$(count_written)" 256
check "fsync" pmem-io map-write --offset 64K --length 64K --seed 2 --durable fsync $MNT/file
is "fsync: those that were stored to" "$(count_written)" 16
check "fsync again" pmem-io fill --length 4K --seed 2 $MNT/file
is "nothing is left to be written back" "$(count_written)" 0
umount $MNT
mount_dax "$disk"
check "mounted again, the one is there" pmem-io verify --offset 64K --length 64K --seed 2 $MNT/file
check "and the other" pmem-io verify --offset 128K $MNT/file
