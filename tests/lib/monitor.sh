# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the tests of `pmemctl monitor` share.
# shellcheck source=tests/lib/sigbus.sh
. "$TESTS/lib/sigbus.sh"

EVENTS=/tmp/watch.events

# watches [ARGUMENT OF pmemctl monitor…]: as process $WATCHER from now on; $EVENTS says what it tells.
watches() {
	: >$EVENTS
	pmemctl monitor --json "$@" >$EVENTS 2>/tmp/watch.errors &
	WATCHER=$!
	wait_for 30 grep -q watching $EVENTS
}

# event OFFSET FILTER: what is told of the last error at a byte of a disk, within two seconds from now.
event() {
	wait_for 2 grep -q "\"disk_offset\":$1,.*\"complete\":true\|\"complete\":true.*\"disk_offset\":$1," $EVENTS || :
	jq -r "select(.disk_offset == $1 and .complete) | $2" $EVENTS | tail -n 1
}

# ends: SIGTERM; its status is in $watch_status.
ends() {
	kill "$WATCHER"
	watch_status=0
	# shellcheck disable=SC2034 # for the tests
	wait "$WATCHER" || watch_status=$?
	WATCHER=
}
