# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that remove a disk while fio uses it:
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/busy.sh"


# start_fio PATH OPTIONS OF fio…: starts fio, and waits until it has a file below this path open.
start_fio() {
	fio_path=$1
	shift
	fio --name=busy --rw=randrw --bs=4k --time_based --runtime=60 "$@" >/tmp/fio 2>&1 &
	fio_pid=$!
	until [ -n "$(find /proc/[0-9]*/fd -lname "$fio_path*" 2>/dev/null)" ]; do
		kill -0 $fio_pid || return
		sleep 0.1
	done
	sleep 1
}

# check_fio_fails NAME: 1 subtest: fio ends with an error after its disk is gone.
check_fio_fails() {
	fio_start=$(date +%s)
	fio_status=0
	wait "$fio_pid" || fio_status=$?
	is "$1: fio ends with an error, soon" "$((fio_status != 0)) $(($(date +%s) - fio_start < 20))" "1 1"
	sed 's/^/# /' /tmp/fio | grep -i error | sort -u || :
}
