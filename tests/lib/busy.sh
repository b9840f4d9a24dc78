# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For tests in which a disk goes under fio.
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/busy.sh"


# busy PATH OPTIONS OF fio…: fio is running, and has a file below this path open.
busy() {
	busy_path=$1
	shift
	fio --name=busy --rw=randrw --bs=4k --time_based --runtime=60 "$@" >/tmp/fio 2>&1 &
	fio=$!
	until [ -n "$(find /proc/[0-9]*/fd -lname "$busy_path*" 2>/dev/null)" ]; do
		kill -0 $fio || return
		sleep 0.1
	done
	sleep 1
}

# ends NAME: how fio ends when its disk is gone.
ends() {
	ends_begin=$(date +%s)
	ends_status=0
	wait "$fio" || ends_status=$?
	is "$1: fio ends with an error, soon" "$((ends_status != 0)) $(($(date +%s) - ends_begin < 20))" "1 1"
	sed 's/^/# /' /tmp/fio | grep -i error | sort -u || :
}
