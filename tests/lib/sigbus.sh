# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests in which memory fails while another process has it mapped:
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/sigbus.sh"
#	map_start --length 4M FILE
#	…
#	map_stop
#	record "the signal" "$(sigbus_info)"


# map_start ARGUMENTS OF pmem-io map: starts a process that maps the file and touches each page.
map_start() {
	rm -f /tmp/sigbus.*
	pmem-io map "$@" load run="touch /tmp/sigbus.ready; until [ -e /tmp/sigbus.done ]; do sleep 0.05; done" sigbus >/tmp/sigbus.other 2>&1 &
	map_pid=$!
	until [ -e /tmp/sigbus.ready ]; do
		sleep 0.05
	done
}

# map_stop: ends that process.
map_stop() {
	touch /tmp/sigbus.done
	wait "$map_pid"
}

sigbus_info() {
	tail -n 1 /tmp/sigbus.other
}

# make_xfs_file DISK: makes XFS with a file of 4 MiB, MNT/file. $address is the physical address of its page 257, $start
# that of the disk.
# shellcheck disable=SC2034 # for the tests
make_xfs_file() {
	echo 1 >/proc/sys/vm/memory_failure_early_kill
	start=$(cat "/sys/block/$1/device/resource")
	make_fs xfs "$1" -m rmapbt=1
	mount_dax "$1"
	fallocate -l 4M "$MNT/file"
	pmem-io fill "$MNT/file"
	address=$(pmem-io phys --offset 1028K "$MNT/file")
}
