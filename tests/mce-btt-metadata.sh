#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check in the map or the log of a BTT fails what needs that page, and affects no other sector and no old data.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# inject_mce NAME OFFSET: 1 row: injects a machine check at this offset in the namespace, and waits until it is listed.
inject_mce() {
	host mce $((start + $2))
	check "$1: the page is listed" wait_for 60 grep -qx "$(($2 / 512)) 8" "$ND/$region/badblocks"
}

# field NAME: of the arena, an offset in the BTT, which begins at 4K of the namespace (struct arena_info in drivers/nvdimm/btt.h).
field() {
	echo $((4096 + $(cat "/sys/kernel/debug/btt/$btt/arena0/$1")))
}

# check_data NAME FIRST NUMBER [SEED]: 1 row: these MiB have their data.
check_data() {
	check "$1" pmem-io verify --direct "/dev/$disk" --offset "$2M" --length "$3M" --seed "${4:-1}"
}

need pmem-io taskset
plan 16
load_driver
disk=$(labelled_disk -m sector -l 4096 -s 80M)
region=$(labelled_region)
# The first namespace begins where the region does.
start=$(cat "$ND/$region/resource")
btt=$(device_of_disk "$disk")
# A bind looks at the map of the sector that each processor has written last.
taskset -cp 0 $$ >/dev/null
pmem-io fill --direct "/dev/$disk" --length 16M --seed 1
map=$(field mapoff)
log=$(field logoff)

# The entries of sectors 1024 to 2047 (4M to 8M), of 4 bytes each.
inject_mce "the map" $((map + 4096))
check_fails "the map: a read of a sector" pmem-io pread --direct "/dev/$disk" --offset 5M --length 4K
check_fails "the map: a write of one" pmem-io pwrite --direct "/dev/$disk" --offset 5M --length 4K
check_data "the map: the sectors before these" 0 4
check_data "the map: the sectors behind these" 8 8
check "the map: they can be written" pmem-io fill --direct "/dev/$disk" --offset 8M --length 8M --seed 2
check "the map: bound again" rebind "$btt"
check_fails "the map, bound again: a read of a sector" pmem-io pread --direct "/dev/$disk" --offset 5M --length 4K
check_data "the map, bound again: the sectors before these" 0 4
check_data "the map, bound again: the sectors behind these" 8 8 2

# The first page has the entries of both processors.
inject_mce "the log" "$log"
check_fails "the log: a write of a sector" pmem-io pwrite --direct "/dev/$disk" --length 4K
check_data "the log: the sectors before these" 0 4
check_data "the log: the sectors behind these" 8 8 2
echo "$btt" >"/sys/bus/nd/drivers/$DRIVER/unbind"
check_fails "the log: it is not bound again" sh -c "echo $btt >/sys/bus/nd/drivers/$DRIVER/bind"
is_empty "the log: nor is there a raw disk" find /sys/block -name "${disk%s}*"
