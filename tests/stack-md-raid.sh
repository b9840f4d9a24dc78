#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# RAID 0 and RAID 1 over two namespaces survive a reload of the driver; a mirror runs degraded and resynchronises.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

need mdadm fio
md=md127
cleanup() {
	umount $MNT 2>/dev/null
	mdadm -q --stop /dev/$md
	mdadm -q --zero-superblock "/dev/$FIRST" "/dev/$SECOND"
} 2>/dev/null

# create_array LEVEL
create_array() {
	mdadm -q --create /dev/$md --run --metadata=1.2 --homehost=none --bitmap=none --level="$1" --raid-devices=2 --assume-clean \
		"/dev/$FIRST" "/dev/$SECOND"
}

assemble_array() {
	mdadm -q --assemble /dev/$md "/dev/$FIRST" "/dev/$SECOND"
}

is_in_sync() {
	[ "$(cat /sys/block/$md/md/degraded) $(cat /sys/block/$md/md/sync_action)" = "0 idle" ]
}

plan 25
load_driver
make_two_disks -m fsdax -M mem -s 48M
for level in 0 1; do
	check "RAID $level: made" create_array $level
	record "RAID $level: queue" "$(queue_attributes $md dax write_cache fua logical_block_size physical_block_size minimum_io_size optimal_io_size)"
	record "RAID $level: size" "$(blockdev --getsize64 /dev/$md)"
	check_disk "RAID $level" $md
	record_unload_refused "RAID $level: the driver is in use"
	pmem-io fill /dev/$md --length 8M --seed $level
	mdadm -q --stop /dev/$md
	reload_driver
	check "RAID $level: the driver was away: assembled again" assemble_array
	check "RAID $level: what was written is there" pmem-io verify /dev/$md --length 8M --seed $level
	[ $level = 1 ] || mdadm -q --stop /dev/$md
done

mdadm -q /dev/$md --fail "/dev/$SECOND" --remove "/dev/$SECOND"
pmem-io fill /dev/$md --length 8M --seed 5
mdadm -q /dev/$md --add "/dev/$SECOND"
check "RAID 1: a half that was away is brought up to date" wait_for 90 is_in_sync
mdadm -q /dev/$md --fail "/dev/$FIRST" --remove "/dev/$FIRST"
check "RAID 1: and has all of it" pmem-io verify --direct /dev/$md --length 8M --seed 5
mdadm -q /dev/$md --add "/dev/$FIRST"
wait_for 90 is_in_sync
record "RAID 1: mismatches" "$(echo check >/sys/block/$md/md/sync_action && wait_for 90 is_in_sync && cat /sys/block/$md/md/mismatch_cnt)"
