# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that remove, keep or suspend a disk while fio uses it:
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/busy.sh"

# PACE: requests a second, at which fio works for long enough: on a kernel for debugging it takes seconds to start it and to see
# that it is at work.
# shellcheck disable=SC2034 # for the tests
case $(uname -r) in
*-debug*) PACE=40 ;;
*) PACE=200 ;;
esac

# start_fio PATH OPTIONS OF fio…: starts fio on files below this path, and waits until one of its jobs has one open. Fails if fio
# ends before. Its results are in /tmp/fio, its errors in /tmp/fio.errors: with --output, the processes of fio mix both in one file.
start_fio() {
	fio_path=$1
	shift
	fio --name=busy --rw=randrw --bs=4k "$@" >/tmp/fio 2>/tmp/fio.errors &
	fio_pid=$!
	until fio_is_at_work; do
		fio_has_not_ended || return
		sleep 0.1
	done
	sleep 0.5
	fio_has_not_ended
}

fio_has_not_ended() {
	fio_state=
	{ read -r _ _ fio_state _ <"/proc/$fio_pid/stat"; } 2>/dev/null || :
	case $fio_state in
	'' | Z)
		echo "# fio has ended"
		sed 's/^/# /' /tmp/fio.errors /tmp/fio
		return 1
		;;
	esac
}

# Jobs are children of the first process, which opens the files too, but only to see their size.
fio_is_at_work() {
	fio_children=
	# Without a process, which takes time from fio, where the kernel has this file.
	{ read -r fio_children <"/proc/$fio_pid/task/$fio_pid/children"; } 2>/dev/null || :
	[ -e "/proc/$$/task/$$/children" ] || fio_children=$(pgrep -P "$fio_pid")
	for fio_job in $fio_children; do
		[ -z "$(find "/proc/$fio_job/fd" -lname "$fio_path*" 2>/dev/null)" ] || return 0
	done
	return 1
}

# check_fio_fails NAME: 1 subtest: fio ends with an error after its disk is gone.
check_fio_fails() {
	fio_start=$(date +%s)
	fio_status=0
	wait "$fio_pid" || fio_status=$?
	is "$1: fio ends with an error, soon" "$((fio_status != 0)) $(($(date +%s) - fio_start < 60))" "1 1"
	sed 's/^/# /' /tmp/fio.errors /tmp/fio | grep -i error | sort -u || :
}

# stop_fio: interrupts fio, and waits until it has ended.
stop_fio() {
	kill -INT "$fio_pid" || :
	fio_status=0
	wait "$fio_pid" || fio_status=$?
}

# fio_jobs QUERY: prints what this query of jq finds in each job of fio, which was started with --output-format=json and stopped;
# if it left no result, how it ended.
fio_jobs() {
	sed -n '/^{/,$p' /tmp/fio | jq -r ".jobs[] | $1" | grep . || {
		echo "fio ended with status $fio_status"
		tail -n 5 /tmp/fio.errors /tmp/fio
	}
}
