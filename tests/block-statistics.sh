#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# I/O statistics are off by default; with iostats on, they count reads, writes and sectors.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# show_counts: reads, sectors read, writes, sectors written.
show_counts() {
	awk -v disk="$disk" '$3 == disk { print $4, $6, $8, $10 }' /proc/diskstats
}

# do_io: 8 reads of 8 sectors, 4 writes of 32.
do_io() {
	dd if="/dev/$disk" of=/dev/null bs=4k count=8 iflag=direct status=none
	dd if=/dev/zero of="/dev/$disk" bs=16k count=4 oflag=direct status=none
}

# difference BEFORE AFTER: of each count.
difference() {
	echo "$1 $2" | awk '{ print $5 - $1, $6 - $2, $7 - $3, $8 - $4 }'
}

cleanup() {
	echo 0 >"/sys/block/$disk/queue/iostats"
}

plan 6
load_driver
disk=$(plain_disk)
is "off at first" "$(cat "/sys/block/$disk/queue/iostats")" 0
before=$(show_counts)
do_io
is "off: nothing is counted" "$(difference "$before" "$(show_counts)")" "0 0 0 0"
echo 1 >"/sys/block/$disk/queue/iostats"
before=$(show_counts)
do_io
is "on: each transfer is" "$(difference "$before" "$(show_counts)")" "8 64 4 128"
# In ms.
check "in less time than the test takes" test "$(awk -v disk="$disk" '$3 == disk { print $7 + $11 }' /proc/diskstats)" -lt 60000
is "none is left in flight" "$(awk '{ print $1 + $2 }' "/sys/block/$disk/inflight")" 0
echo 0 >"/sys/block/$disk/queue/iostats"
before=$(show_counts)
do_io
is "off again: nothing" "$(difference "$before" "$(show_counts)")" "0 0 0 0"
