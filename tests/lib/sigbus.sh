# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For tests in which memory fails that another process has mapped.
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/sigbus.sh"
#	begin --length 4M FILE
#	…
#	end
#	seen "what it was told" "$(was_told)"


# begin ARGUMENTS OF pmem-io map: another process has touched all of it, and keeps it mapped.
begin() {
	rm -f /tmp/told.*
	pmem-io map "$@" load run="touch /tmp/told.ready; until [ -e /tmp/told.done ]; do sleep 0.05; done" told >/tmp/told.other 2>&1 &
	told_pid=$!
	until [ -e /tmp/told.ready ]; do
		sleep 0.05
	done
}

# end: until here.
end() {
	touch /tmp/told.done
	wait "$told_pid"
}

was_told() {
	tail -n 1 /tmp/told.other
}

# xfs_file DISK: a file of 4 MiB, MNT/file, on XFS on it; $address is that of its page 257 in the memory, $start that of the disk.
# shellcheck disable=SC2034 # for the tests
xfs_file() {
	echo 1 >/proc/sys/vm/memory_failure_early_kill
	start=$(cat "/sys/block/$1/device/resource")
	make_fs xfs "$1" -m rmapbt=1
	mount_dax "$1"
	fallocate -l 4M "$MNT/file"
	pmem-io fill "$MNT/file"
	address=$(pmem-io phys --offset 1028K "$MNT/file")
}
