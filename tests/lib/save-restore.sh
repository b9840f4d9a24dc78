# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests of `pmemctl errors save` and `pmemctl errors restore`.

STATE=/var/lib/pmemctl
FOLLOW=/tmp/follow.log

# mount_state_dir DISK: sets the machine id, and mounts a file system that survives a reboot at the state directory.
# Stage 1 makes the file system.
mount_state_dir() {
	echo 0123456789abcdef0123456789abcdef >/etc/machine-id
	# shellcheck disable=SC2153 # STAGE is of test.sh
	[ "$STAGE" -gt 1 ] || mkfs.ext4 -q -F -b 4096 "/dev/$1" || return
	mkdir -p $STATE
	mount "/dev/$1" $STATE
}

# start_follow: saves at each change from now on, in process $FOLLOW_PID; its output goes to $FOLLOW.
start_follow() {
	: >$FOLLOW
	pmemctl errors save --follow --all >$FOLLOW 2>&1 &
	export FOLLOW_PID=$!
	wait_for 30 test -s $FOLLOW
}

# has_saved DISK SECTORS: a list with so many new bad sectors was saved for the disk. Other disks may have errors, too.
has_saved() {
	grep -q "^$1: .*($2 new" $FOLLOW
}

# state_file PROVIDER NAMESPACE: the saved file of memory that is identified by its physical address, which is that of
# the namespace.
state_file() {
	printf '%s/%s-%x.json\n' $STATE "$1" "$(namespace_start "$2")"
}

# state_file_has FILE TEXT…: the file contains each text soon.
state_file_has() {
	state_path=$1
	shift
	for state_text in "$@"; do
		wait_for 40 grep -q "$state_text" "$state_path" || {
			cat "$state_path" $FOLLOW
			return 1
		}
	done
}

# restore [OPTION…] [DISK…]: restores like the udev rule does, and prints the result for each disk.
restore() {
	pmemctl errors restore --json "$@" | jq -r '.reports[] | "\(.disk) \(.result) \(.restored_sectors)"'
}

# inject_mce DISK ADDRESS [LSB]: injects a machine check, and waits until it is listed.
inject_mce() {
	pmem-io poll "/sys/block/$1/badblocks" --run "host mce $2 ${3:-12}" >/tmp/badblocks
}

# namespace_start NAMESPACE: its physical address.
namespace_start() {
	echo $(($(cat "$ND/$1/resource")))
}
