#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Statistics are off at first; switched on, they count reads, writes and sectors.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# counts: reads, sectors read, writes, sectors written.
counts() {
	awk -v disk="$disk" '$3 == disk { print $4, $6, $8, $10 }' /proc/diskstats
}

# transfers: 8 reads of 8 sectors, 4 writes of 32.
transfers() {
	dd if="/dev/$disk" of=/dev/null bs=4k count=8 iflag=direct status=none
	dd if=/dev/zero of="/dev/$disk" bs=16k count=4 oflag=direct status=none
}

# change FROM TO: the differences.
change() {
	echo "$1 $2" | awk '{ print $5 - $1, $6 - $2, $7 - $3, $8 - $4 }'
}

cleanup() {
	echo 0 >"/sys/block/$disk/queue/iostats"
}

plan 5
load_driver
disk=$(plain_disk)
is "off at first" "$(cat "/sys/block/$disk/queue/iostats")" 0
before=$(counts)
transfers
is "off: nothing is counted" "$(change "$before" "$(counts)")" "0 0 0 0"
echo 1 >"/sys/block/$disk/queue/iostats"
before=$(counts)
transfers
is "on: each transfer is" "$(change "$before" "$(counts)")" "8 64 4 128"
is "none is left in flight" "$(awk '{ print $1 + $2 }' "/sys/block/$disk/inflight")" 0
echo 0 >"/sys/block/$disk/queue/iostats"
before=$(counts)
transfers
is "off again: nothing" "$(change "$before" "$(counts)")" "0 0 0 0"
