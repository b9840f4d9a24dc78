#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl names a file by the kernel's own reports and by parent pointers, without a walk over the file system.
#
# XFS with parent pointers; XFS without a reverse map, by its health monitor; ext4, by fanotify.
# expect-splat: at __xfs_healthmon_insert+
# vm: files
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/monitor.sh"

TRACE=/tmp/getdents.trace
# Records which directories are read.
STRACE="strace -f --seccomp-bpf -y -qq -e trace=getdents64 -o $TRACE"

cleanup() {
	exec 3<&-
	# The monitor, which may be stopped; strace ends with it.
	[ -z "${tracer:-}" ] || pkill -KILL -P "$tracer"
	wait
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	wipefs -aq "/dev/$disk"
	unload_driver
}

# directories_read: how often the directory of the file was read.
directories_read() {
	grep -c deep-folder $TRACE || :
}

# make_files TYPE [OPTION OF mkfs…]: a file with two names, on a file system without DAX.
make_files() {
	type=$1
	shift
	make_fs "$type" "$disk" "$@" || return
	mkdir -p "$MNT"
	mount -o dax=never "/dev/$disk" "$MNT"
	mkdir "$MNT/deep-folder"
	file=$MNT/deep-folder/file
	dd if=/dev/urandom of="$file" bs=1M count=4 conv=fsync status=none
	ln "$file" "$MNT/link"
	sync
}

# make_bad OFFSET: makes a page of the file bad.
make_bad() {
	echo "$(sector_of "$file" "$1") 8" >"/sys/block/$disk/badblocks"
}

end_files() {
	umount "$MNT"
	forget_errors_now "$disk"
}

# start_traced: starts the monitor as process $MONITOR_PID, below strace.
start_traced() {
	: >$EVENTS
	$STRACE pmemctl monitor --json --verbose >$EVENTS 2>/tmp/watch.errors &
	tracer=$!
	wait_for 30 grep -q watching $EVENTS
	MONITOR_PID=$(pgrep -P $tracer)
}

# listens WHAT: the monitor has a descriptor of this name.
listens() {
	# shellcheck disable=SC2010 # names of descriptors
	ls -l "/proc/$MONITOR_PID/fd" | grep -q "$1"
}

listens_no_more() {
	! listens "$1"
}

need strace jq filefrag pgrep pkill
plan 18
load_driver
disk=$(e820_disk)

# ---- XFS with parent pointers ----

make_files xfs -m rmapbt=1 -n parent=1
make_bad 1048576
$STRACE pmemctl errors --json --links "$MNT" >/tmp/errors.json 2>/dev/null || :
is "parent pointers: all names" "$(jq -c '.errors[0].owner.paths | sort' /tmp/errors.json)" "[\"$file\",\"$MNT/link\"]"
is "parent pointers: no directory is read" "$(directories_read)" 0
exec 3<"$file"
rm "$file" "$MNT/link"
$STRACE pmemctl errors --json "$MNT" >/tmp/errors.json 2>/dev/null || :
is "parent pointers: a removed file" "$(jq -c ".errors[0].owner.open_by | index($$) != null" /tmp/errors.json)" true
is "parent pointers: a removed file: no directory is read" "$(directories_read)" 0
exec 3<&-
end_files

# ---- the kernel's reports ----

for type in xfs ext4; do
	case $type in
	xfs) options='-m rmapbt=0 -n parent=0' listener=xfs_healthmon ;;
	ext4) options='' listener=fanotify ;;
	esac
	# shellcheck disable=SC2086 # several words
	make_files $type $options
	start_traced
	check "$type: the monitor listens" wait_for 60 listens "$listener"
	if [ "$type" = xfs ]; then
		pmemctl monitor --json --verbose >/tmp/second.events &
		second=$!
		wait_for 30 grep -q XFS_IOC_HEALTH_MONITOR /tmp/second.events || :
		kill $second
		wait $second || :
		is "$type: a second monitor says that it does not" \
			"$(jq -r 'select(.event == "not-reported") | .reason' /tmp/second.events | grep -c XFS_IOC_HEALTH_MONITOR)" 1
	fi
	# The report is there when the monitor sees the list; no process has the file open any more.
	kill -STOP "$MONITOR_PID"
	make_bad 1048576
	at=$(disk_offset_of "$file" 1048576)
	check_fails "$type: the read fails" dd if="$file" of=/dev/null bs=4k skip=256 count=1 iflag=direct
	sleep 3
	: >$TRACE
	kill -CONT "$MONITOR_PID"
	# The monitor is slow below strace.
	wait_for 30 grep -q '"complete":true' $EVENTS || :
	is "$type: the file and its offset" "$(monitor_event "$at" '"\(.owner.inode) \(.owner.file_offset)"')" \
		"$(stat -c %i "$file") 1048576"
	is "$type: no directory is read" "$(directories_read)" 0
	check "$type: the file system can be unmounted" umount "$MNT"
	[ "$type" = ext4 ] || check "$type: the monitor stops listening" wait_for 60 listens_no_more "$listener"
	kill "$MONITOR_PID"
	wait "$tracer" || :
	mount -o dax=never "/dev/$disk" "$MNT"
	$STRACE pmemctl errors --links "$MNT" >/dev/null 2>&1 || :
	check "$type: a search reads it" test "$(directories_read)" -gt 0
	end_files
done
