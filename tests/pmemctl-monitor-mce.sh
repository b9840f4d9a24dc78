#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl monitor reports a machine check in a file soon: the file, the offset and the mapping process.
#
# On ext4 and XFS, while no process touches the page. With rust_pmem, also an injected error.
# expect-splat: at __xfs_healthmon_insert+
# vm: labels
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/monitor.sh"

cleanup() {
	touch /tmp/sigbus.done
	[ -z "${MONITOR_PID:-}" ] || kill "$MONITOR_PID" 2>/dev/null
	wait
	for at in "$MNT"/*; do
		umount "$at" 2>/dev/null
	done
}

# make_disk SIZE: an fsdax namespace of this size; prints its disk.
make_disk() {
	ndctl create-namespace -r "$(labelled_region)" -s "$1" -m fsdax -M mem >/tmp/disk_in.json || return
	settle
	jq -r .blockdev /tmp/disk_in.json
}

need filefrag jq
plan 11
! driver_loaded || unload_driver
load_providers
if [ "$DRIVER" = rust_pmem ]; then
	modprobe -a libnvdimm nd_btt
	insmod "$MODULE" inject=1
fi
load_driver
fresh_labels
# shellcheck disable=SC2119 # all disks
start_monitor
for size in 96M 352M; do
	disk=$(make_disk "$size")
	if [ "$(cat "/sys/block/$disk/size")" -gt 614400 ]; then
		type=xfs
	else
		type=ext4
	fi
	make_fs $type "$disk"
	mkdir -p $MNT/$type
	mount -o dax=always "/dev/$disk" $MNT/$type
	file=$MNT/$type/file
	fallocate -l 4M $file
	pmem-io fill $file
	sync
	address=$(pmem-io phys $file --offset 400K)
	at=$(disk_offset_of $file 409600)
	map_start --length 4M $file
	host mce "$address" 12
	is "$type: file and place" "$(monitor_event "$at" '"\(.owner.paths[0]) \(.owner.file_offset) \(.length) \(.new)"')" "$file 409600 4096 true"
	is "$type: who has it mapped" "$(monitor_event "$at" '.processes[] | "\(.pid) \(.addresses | length)"')" "$map_pid 1"
	map_stop
	sed 's/^/# /' /tmp/sigbus.other
	check "$type: the file is affected" test "$(pmemctl errors --json $file | jq '.errors[0].owner.file_offset')" = 409600
	if [ $type = ext4 ] && [ "$DRIVER" = nd_pmem ]; then
		for name in made 'file and place' 'who has it mapped' cleared; do
			skip "injected: $name" "C can't inject"
		done
	elif [ $type = ext4 ]; then
		at=$(disk_offset_of $file 1048576)
		map_start --length 1M --offset 1M $file
		check "injected: made" pmemctl errors inject "$disk" "$at" 4K
		is "injected: file and place" "$(monitor_event "$at" '"\(.owner.paths[0]) \(.owner.file_offset) \(.length)"')" "$file 1048576 4096"
		is "injected: who has it mapped" "$(monitor_event "$at" '.processes[] | select(.addresses != []) | .pid')" "$map_pid"
		map_stop
		check "injected: cleared" pmemctl errors forget "$disk" "$at" 4K
	fi
done
stop_monitor
is "SIGTERM: status 0" "$monitor_status" 0
