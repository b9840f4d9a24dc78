# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests of `pmemctl monitor`.
# shellcheck source=tests/lib/sigbus.sh
. "$TESTS/lib/sigbus.sh"

EVENTS=/tmp/watch.events

# start_monitor [ARGUMENT…]: starts the monitor as process $MONITOR_PID; its events go to $EVENTS.
start_monitor() {
	: >$EVENTS
	pmemctl monitor --json "$@" >$EVENTS 2>/tmp/watch.errors &
	MONITOR_PID=$!
	wait_for 30 grep -q watching $EVENTS
}

# monitor_event OFFSET FILTER: the complete event of the last error at a byte of a disk, which arrives soon: not when the monitor
# looks at all lists again. soak-errors measures two seconds.
monitor_event() {
	wait_for 40 grep -q "\"disk_offset\":$1,.*\"complete\":true\|\"complete\":true.*\"disk_offset\":$1," $EVENTS || :
	jq -r "select(.disk_offset == $1 and .complete) | $2" $EVENTS | tail -n 1
}

# stop_monitor: sends SIGTERM; the exit status is in $monitor_status.
stop_monitor() {
	kill "$MONITOR_PID"
	monitor_status=0
	# shellcheck disable=SC2034 # for the tests
	wait "$MONITOR_PID" || monitor_status=$?
	MONITOR_PID=
}
