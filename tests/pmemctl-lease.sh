#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# While a command runs under pmemctl lease, a truncate by others waits, up to the kernel's limit.
#
# The exit status and signals are those of the command.
# vm: files
# timeout: 180
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	touch /tmp/release
	umount "$MNT" 2>/dev/null
	[ -z "${limit:-}" ] || echo "$limit" >/proc/sys/fs/lease-break-time
	wipefs -aq "/dev/$disk"
	unload_driver
}

# start_lease [OPTION…]: starts process $HOLDER, a command that maps the file until /tmp/release exists.
start_lease() {
	rm -f /tmp/release /tmp/mapped
	pmemctl lease "$@" "$file" -- pmem-io map "$file" --read-only --length 64K load \
		run='touch /tmp/mapped; until [ -e /tmp/release ]; do sleep 0.1; done' load >/tmp/hold.out 2>/tmp/hold.err &
	HOLDER=$!
	wait_for 60 test -e /tmp/mapped || :
}

# release_lease: ends the command; its exit status is in $hold_status.
release_lease() {
	touch /tmp/release
	hold_status=0
	wait "$HOLDER" || hold_status=$?
}

size_is() {
	[ "$(stat -c %s "$file")" = "$1" ]
}

# start_truncate: truncates the file in another process.
start_truncate() {
	sh -c ": >'$file'" &
	CUTTER=$!
	wait_for 60 truncate_has_begun || :
}

truncate_has_begun() {
	truncate_waits || size_is 0
}

truncate_waits() {
	grep -q break_lease "/proc/$CUTTER/stack"
}

need setpriv
plan 29
load_driver
disk=$(e820_disk)
limit=$(cat /proc/sys/fs/lease-break-time)
file=$MNT/file
for type in ext4 xfs; do
	make_fs $type "$disk"
	mount_dax "$disk"
	fallocate -l 64K "$file"
	pmem-io fill "$file"

	start_lease
	check "$type: held" test -e /tmp/mapped
	check "$type: with its limits" grep -q "no longer than $limit s" /tmp/hold.err
	start_truncate
	check "$type: another process's truncate waits" truncate_waits
	check "$type: which is said" wait_for 60 grep -q 'waits for it' /tmp/hold.err
	check "$type: the file is whole" size_is 65536
	release_lease
	is "$type: the command has read all of it again" "$hold_status $(tail -n 1 /tmp/hold.out)" "0 load: 16 pages"
	wait "$CUTTER"
	check "$type: it is truncated then" size_is 0

	fallocate -l 64K "$file"
	pmem-io fill "$file"
	echo 2 >/proc/sys/fs/lease-break-time
	start_lease --quiet
	is_empty "$type: --quiet" cat /tmp/hold.err
	start_truncate
	check "$type: no longer than the limit" wait_for 30 size_is 0
	check "$type: which is said, too" wait_for 60 grep -q 'not held any more' /tmp/hold.err
	touch /tmp/release
	wait "$HOLDER" || :
	echo "$limit" >/proc/sys/fs/lease-break-time
	[ $type = xfs ] || umount "$MNT"
done

status=0
pmemctl lease --quiet "$file" -- sh -c 'exit 7' || status=$?
is "the command's status" $status 7
status=0
pmemctl lease --quiet "$file" -- /none 2>/dev/null || status=$?
is "no command: as of a shell" $status 127
pmemctl lease --quiet "$file" -- sh -c 'trap "exit 9" USR1; touch /tmp/ready; while :; do sleep 0.1; done' &
holder=$!
wait_for 60 test -e /tmp/ready
kill -USR1 $holder
status=0
wait $holder || status=$?
is "signals are passed on" $status 9
# shellcheck disable=SC2016 # for the command
check "exclusive: another open waits while the command writes" pmemctl lease --exclusive "$file" -- sh -c \
	'eval "echo text >&$PMEMCTL_LEASE_FD"; status=0; timeout 5 cat "$1" || status=$?; [ $status = 124 ]' sh "$file"
is "exclusive: it has written" "$(head -c 5 "$file")" text
exec 3>>"$file"
status=0
pmemctl lease "$file" -- true 2>/tmp/hold.err || status=$?
exec 3>&-
is "open for writing: refused" "$status $(grep -c 'open for writing' /tmp/hold.err)" "125 1"
status=0
setpriv --reuid 65534 --regid 65534 --clear-groups pmemctl lease "$file" -- true 2>/tmp/hold.err || status=$?
is "of another owner: refused" "$status $(grep -c 'only its owner' /tmp/hold.err)" "125 1"
status=0
pmemctl lease /proc/version -- true 2>/tmp/hold.err || status=$?
is "no leases there: refused" $status 125
status=0
pmemctl lease "$MNT" -- true 2>/tmp/hold.err || status=$?
is "no file: refused" "$status $(grep -c 'no regular file' /tmp/hold.err)" "125 1"
