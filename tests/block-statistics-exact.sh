#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# I/O statistics count known I/O exactly, for a disk, a partition, /proc/diskstats and sector mode.
#
# With and without iostats, which is off by default; includes failed, zeroing and flushing requests.
# compare
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# show_counts FILE: reads, sectors read, writes, sectors written, discards, sectors discarded, flushes; without merges
# and times.
show_counts() {
	awk '{ print $1, $3, $5, $7, $12, $14, $16 }' "$1"
}

# increments COMMAND…: the increments by the command of the counts of the disk and the partition, in this order.
increments() {
	for folder in $folders; do
		show_counts "$folder/stat"
	done >$tmp.before
	"$@" >/dev/null 2>&1 || :
	for folder in $folders; do
		show_counts "$folder/stat"
	done >$tmp.after
	paste $tmp.before $tmp.after | awk '{ for (i = 1; i <= 7; i++) printf "%d ", $(i + 7) - $i }'
}

# count_io NAME COMMAND…: a row of the increments.
count_io() {
	io_name=$1
	shift
	add_row "$name: $io_name" "$(increments "$@")"
}

count_each() {
	count_io "a read of 4K" pmem-io pread --direct "$node" --length 4096
	count_io "a write of 1M" pmem-io pwrite --direct "$node" --length 1M
	count_io "a read of a sector" pmem-io pread --direct "$node" --offset 4096 --length "$sector"
	count_io "zeroing 64K" blkdiscard -f -z -l 64K "$node"
	count_io "discard" blkdiscard -f -l 64K "$node"
	count_io "fsync" sync "$node"
	count_io "a write with O_DSYNC" dd if=/dev/zero of="$node" bs=4096 count=1 oflag=direct,dsync status=none
	count_io "a buffered write, synced" dd if=/dev/zero of="$node" bs=64K count=1 conv=fsync status=none
	count_io "a read behind the end" pmem-io pread --direct "$node" --offset 1G --length 4096
	add_row "$name: in flight" "$(tr -s ' ' <"${folders%% *}/inflight")"
}

# do_io: 8 reads of 8 sectors, 4 writes of 32.
do_io() {
	dd if="/dev/$disk" of=/dev/null bs=4k count=8 iflag=direct status=none
	dd if=/dev/zero of="/dev/$disk" bs=16k count=4 oflag=direct status=none
}

tmp=/tmp/block-statistics-exact

cleanup() {
	echo 0 >"/sys/block/$disk/queue/iostats"
	rm -f $tmp.*
}

plan 49
load_driver_anew
disk=$(plain_disk)
folders=/sys/block/$disk node=/dev/$disk sector=512
is "off at first" "$(cat "/sys/block/$disk/queue/iostats")" 0
is "off: nothing is counted" "$(increments do_io)" "0 0 0 0 0 0 0 "
echo 1 >"/sys/block/$disk/queue/iostats"
is "on: each transfer is" "$(increments do_io)" "8 64 4 128 0 0 0 "
# In ms.
check "in less time than the test takes" test "$(awk -v disk="$disk" '$3 == disk { print $7 + $11 }' /proc/diskstats)" -lt 60000
is "none is left in flight" "$(awk '{ print $1 + $2 }' "/sys/block/$disk/inflight")" 0
echo 0 >"/sys/block/$disk/queue/iostats"
is "off again: nothing" "$(increments do_io)" "0 0 0 0 0 0 0 "
name=off
count_each
echo 1 >"/sys/block/$disk/queue/iostats"
name=on
count_each
show_counts "/sys/block/$disk/stat" >$tmp.stat
add_row "the same in /proc/diskstats" "$(awk -v disk="$disk" '$3 == disk { $1 = $2 = $3 = ""; print }' /proc/diskstats >$tmp.diskstats
	show_counts $tmp.diskstats | cmp - $tmp.stat && echo yes)"
echo 'start=4MiB, size=4MiB' | sfdisk -q --label dos "/dev/$disk"
name="a partition" folders="/sys/block/$disk /sys/block/$disk/${disk}p1" node=/dev/${disk}p1
count_each
echo "200 8" >"/sys/block/$disk/badblocks"
name="a bad block" folders=/sys/block/$disk node=/dev/$disk
count_io "a read of it" pmem-io pread --direct "/dev/$disk" --offset 100K --length 8192
count_io "a write of it" pmem-io pwrite --direct "/dev/$disk" --offset 100K --length 8192
forget_errors "$disk"
unload_driver
load_driver
wipefs -aq "/dev/$disk" 2>/dev/null
partx -d "/dev/$disk" 2>/dev/null || :
disk=$(labelled_disk -m sector -s 32M)
echo 1 >"/sys/block/$disk/queue/iostats"
name="sector" folders=/sys/block/$disk node=/dev/$disk sector=4096
count_each
report_rows
