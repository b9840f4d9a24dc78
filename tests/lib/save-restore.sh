# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the tests of `pmemctl errors save` and `pmemctl errors restore` share.

STATE=/var/lib/pmemctl
FOLLOW=/tmp/follow.log

# has_state DISK: this machine has an id, and a file system that outlives it for what is saved; made in the first stage.
has_state() {
	echo 0123456789abcdef0123456789abcdef >/etc/machine-id
	[ "$STAGE" -gt 1 ] || mkfs.ext4 -q -F -b 4096 "/dev/$1" || return
	mkdir -p $STATE
	mount "/dev/$1" $STATE
}

# follows: saves at each change from now on, as process $FOLLOWER; $FOLLOW says what.
follows() {
	: >$FOLLOW
	pmemctl errors save --follow --all >$FOLLOW 2>&1 &
	export FOLLOWER=$!
	wait_for 30 test -s $FOLLOW
}

# file_of PROVIDER NAMESPACE: where what is known of memory that is known by its place is saved; the namespace begins with it.
file_of() {
	printf '%s/%s-%x.json\n' $STATE "$1" "$(start_of "$2")"
}

# saved FILE TEXT…: it holds each text, within a second.
saved() {
	saved_file=$1
	shift
	for saved_text in "$@"; do
		wait_for 1 grep -q "$saved_text" "$saved_file" || {
			cat "$saved_file" $FOLLOW
			return 1
		}
	done
}

# restore [OPTION…] [DISK…]: as the rule of udev does it; prints the result for each disk.
restore() {
	pmemctl errors restore --json "$@" | jq -r '.[] | "\(.disk) \(.result) \(.restored_sectors)"'
}

# breaks DISK ADDRESS [LSB]: a machine check there; waits until it is listed.
breaks() {
	pmem-io poll "/sys/block/$1/badblocks" --run "host mce $2 ${3:-12}" >/tmp/badblocks
}

# start_of NAMESPACE: its physical address.
start_of() {
	echo $(($(cat "$ND/$1/resource")))
}
