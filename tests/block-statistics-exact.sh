#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Statistics after known I/O: of the disk, of a partition, in /proc/diskstats and in sector mode; with and without iostats; of
# failed, zeroing and flushing requests.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# counts FILE: reads, sectors read, writes, sectors written, discards, sectors discarded, flushes; without merges and times.
counts() {
	awk '{ print $1, $3, $5, $7, $12, $14, $16 }' "$1"
}

# counted NAME COMMAND…: what it adds to the disk's and the partition's, in that order.
counted() {
	counted_name=$1
	shift
	for folder in $folders; do
		counts "$folder/stat"
	done >$tmp.before
	"$@" >/dev/null 2>&1 || :
	for folder in $folders; do
		counts "$folder/stat"
	done >$tmp.after
	add_row "$name: $counted_name" "$(paste $tmp.before $tmp.after | awk '{ for (i = 1; i <= 7; i++) printf "%d ", $(i + 7) - $i }')"
}

each() {
	counted "a read of 4K" pmem-io pread --direct "$node" --length 4096
	counted "a write of 1M" pmem-io pwrite --direct "$node" --length 1M
	counted "a read of a sector" pmem-io pread --direct "$node" --offset 4096 --length "$sector"
	counted "zeroing 64K" blkdiscard -f -z -l 64K "$node"
	counted "discard" blkdiscard -f -l 64K "$node"
	counted "fsync" sync "$node"
	counted "a write with O_DSYNC" dd if=/dev/zero of="$node" bs=4096 count=1 oflag=direct,dsync status=none
	counted "a buffered write, synced" dd if=/dev/zero of="$node" bs=64K count=1 conv=fsync status=none
	counted "a read behind the end" pmem-io pread --direct "$node" --offset 1G --length 4096
	add_row "$name: in flight" "$(tr -s ' ' <"${folders%% *}/inflight")"
}

tmp=/tmp/block-statistics-exact

cleanup() {
	rm -f $tmp.*
}

load_driver
disk=$(plain_disk)
name=off folders=/sys/block/$disk node=/dev/$disk sector=512
each
echo 1 >"/sys/block/$disk/queue/iostats"
name=on
each
counts "/sys/block/$disk/stat" >$tmp.stat
add_row "the same in /proc/diskstats" "$(awk -v disk="$disk" '$3 == disk { $1 = $2 = $3 = ""; print }' /proc/diskstats >$tmp.diskstats
	counts $tmp.diskstats | cmp - $tmp.stat && echo yes)"
echo 'start=4MiB, size=4MiB' | sfdisk -q --label dos "/dev/$disk"
name="a partition" folders="/sys/block/$disk /sys/block/$disk/${disk}p1" node=/dev/${disk}p1
each
echo "200 8" >"/sys/block/$disk/badblocks"
name="a bad block" folders=/sys/block/$disk node=/dev/$disk
counted "a read of it" pmem-io pread --direct "/dev/$disk" --offset 100K --length 8192
counted "a write of it" pmem-io pwrite --direct "/dev/$disk" --offset 100K --length 8192
forget_errors "$disk"
unload_driver
load_driver
wipefs -aq "/dev/$disk" 2>/dev/null
partx -d "/dev/$disk" 2>/dev/null || :
disk=$(labelled_disk -m sector -s 32M)
echo 1 >"/sys/block/$disk/queue/iostats"
name="sector" folders=/sys/block/$disk node=/dev/$disk sector=4096
each
report_rows
