# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Time and memory of commands, for benchmarks.

# now: nanoseconds.
now() {
	date +%s%N
}

# peak PID: sets $peak to the peak memory of the process, in KiB. By the shell alone, because it runs often.
peak() {
	peak=0
	while read -r peak_key peak_value _; do
		[ "$peak_key" != VmHWM: ] || peak=$peak_value
	done 2>/dev/null <"/proc/$1/status" || :
}

# peaks PID: updates $own for this process, and $tools for its child processes.
peaks() {
	peak "$1"
	[ "$peak" -le "$own" ] || own=$peak
	for peaks_task in "/proc/$1/task"/*/children; do
		peaks_children=
		{ read -r peaks_children <"$peaks_task"; } 2>/dev/null || :
		for peaks_child in $peaks_children; do
			peak "$peaks_child"
			[ "$peak" -le "$tools" ] || tools=$peak
		done
	done
}

# peaks_until PID1 PID2: updates $own and $tools for PID2 until PID1 has ended.
peaks_until() {
	while kill -0 "$1" 2>/dev/null; do
		peaks "$2"
		sleep 0.02
	done
}

# measured COMMAND…: runs a command; sets $ns to its time, $own and $tools to peak memory, $status to its exit status. Its
# output is in /tmp/output and /tmp/errors.
# shellcheck disable=SC2034 # for the benchmarks
measured() {
	own=0 tools=0 status=0
	measured_start=$(now)
	"$@" >/tmp/output 2>/tmp/errors &
	measured_pid=$!
	peaks_until "$measured_pid" "$measured_pid"
	wait "$measured_pid" || status=$?
	ns=$(($(now) - measured_start))
}
