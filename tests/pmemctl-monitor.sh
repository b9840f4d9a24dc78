#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl monitor reports each new error soon: the file, the offset, and the processes that map it.
#
# As text, JSON and to a hook; on ext4 and XFS; before any process touches the page; while disks come and go.
# expect-splat: at __xfs_healthmon_insert+
# vm: labels
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"
. "$(dirname "$0")/lib/monitor.sh"

cleanup() {
	touch /tmp/sigbus.done
	[ -z "${MONITOR_PID:-}" ] || kill "$MONITOR_PID" 2>/dev/null
	wait
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	forget_errors "$(e820_disk)"
	wipefs -aq "/dev/$disk"
	unload_driver
}

# make_bad OFFSET: writes a sector to the disk's badblocks.
make_bad() {
	echo "$(($1 / 512)) 1" >"/sys/block/$disk/badblocks"
}

need filefrag jq
plan 37
load_driver
disk=$(labelled_disk -m fsdax -M mem)

for type in xfs ext4; do
	make_fs $type "$disk"
	mount_dax "$disk"
	mkdir "$MNT/a folder"
	file="$MNT/a folder/file"
	for name in "$file" "$MNT/other"; do
		fallocate -l 4M "$name"
		pmem-io fill "$name"
	done
	sync
	[ $type = ext4 ] || make_bad "$(disk_offset_of "$MNT/other" $((3 << 20)))"
	start_monitor
	map_start --length 4M "$file"
	at=$(disk_offset_of "$file" 409600)
	make_bad "$at"
	is "$type: reported, with the file" "$(monitor_event "$at" '.owner.paths[0]')" "$file"
	is "$type: and where in it" "$(monitor_event "$at" .owner.file_offset)" 409600
	is "$type: who has it mapped" "$(monitor_event "$at" '.processes[] | select(.addresses != []) | .pid')" "$map_pid"
	address=$(grep -F "$file" "/proc/$map_pid/maps" | head -n 1 | cut -d - -f 1)
	is "$type: at which address" "$(monitor_event "$at" '.processes[].addresses[0]')" $((0x$address + 409600))
	is "$type: it is new" "$(monitor_event "$at" .new)" true
	at=$(disk_offset_of "$MNT/other" 4096)
	make_bad "$at"
	is "$type: a file that nobody uses" "$(monitor_event "$at" '"\(.owner.paths[0]) \(.owner.file_offset) \(.processes | length)"')" "$MNT/other 4096 0"
	exec 3<"$MNT/other"
	at=$((at + 8192))
	make_bad $at
	is "$type: one that is open" "$(monitor_event $at ".processes[] | select(.pid == $$) | .open")" true
	exec 3<&-
	map_stop
	make_bad $((200 << 20))
	is "$type: free space" "$(monitor_event $((200 << 20)) .owner.kind)" free
	is "$type: no process got SIGBUS" "$(sigbus_info)" "sigbus: no"
	if [ $type = xfs ]; then
		is "errors listed before are not reported" "$(grep -c '"new":false' $EVENTS)" 0
		stop_monitor
		is "SIGTERM: status 0" "$monitor_status" 0
		umount "$MNT"
		forget_errors_now "$disk"
	fi
done

# ---- disks come and go ----

other=$(e820_disk)
namespace=$(e820_ns)
echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/unbind"
is_unwatched() {
	! grep watching $EVENTS | tail -n 1 | grep -q "$other"
}
check "a disk that goes away is not watched" wait_for 30 is_unwatched
echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/bind"
settle
other=$(e820_disk)
echo "2048 8" >"/sys/block/$other/badblocks"
is "one that appears is" "$(monitor_event 1048576 '"\(.disk) \(.length) \(.reason)"')" "$other 4096 there is no file system"
is "with its physical address" "$(monitor_event 1048576 .physical_address)" $(($(cat "$ND/$namespace/resource") + 1048576))
check_schema monitor $EVENTS
stop_monitor
is "disks: SIGTERM: status 0" "$monitor_status" 0
is_empty "no errors" cat /tmp/watch.errors

# ---- hooks, lines, and selected targets ----

# shellcheck disable=SC2016 # for the hook
start_monitor --hook 'echo "$PMEMCTL_DISK $PMEMCTL_OFFSET $PMEMCTL_LENGTH $PMEMCTL_OWNER" >>/tmp/hook.out; cat >>/tmp/hook.in
	echo "$PMEMCTL_KIND $PMEMCTL_INODE $PMEMCTL_COUNT $PMEMCTL_PATH" >>/tmp/hook.file; exit 3' "$MNT/other"
at=$(disk_offset_of "$MNT/other" 1048576)
echo "4096 8" >"/sys/block/$other/badblocks"
make_bad "$at"
is "the file that was asked for" "$(monitor_event "$at" '"\(.owner.file_offset)"')" 1048576
is "and no other" "$(grep -c '"event":"bad"' $EVENTS)" 1
check "a hook is run" wait_for 30 grep -q "^$disk $at 512 $MNT/other\$" /tmp/hook.out
check "with its kind, inode and path" wait_for 30 grep -q "^file $(stat -c %i "$MNT/other") 1 $MNT/other\$" /tmp/hook.file
is "with JSON" "$(jq .owner.file_offset /tmp/hook.in)" 1048576
check "that it fails is said" wait_for 30 grep -q 'hook.*exit status: 3' /tmp/watch.errors
at=$((at + 4096))
make_bad $at
is "and the watching goes on" "$(monitor_event $at .owner.file_offset)" 1052672
stop_monitor

: >$EVENTS
stream=$(stat -c %d:%i $EVENTS)
JOURNAL_STREAM=$stream pmemctl monitor --now >$EVENTS &
MONITOR_PID=$!
check "a line for the journal, of what is bad already" wait_for 30 grep -q "^<2>$disk: media error at .*: $MNT/other at .*; known before" $EVENTS
check_fails "what is not there can't be watched" pmemctl monitor "$MNT/none"
check_fails "not for others than root" setpriv --reuid 65534 pmemctl monitor
stop_monitor
is "journal: SIGTERM: status 0" "$monitor_status" 0
