#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Before the system sleeps, flushes for bios end, and then each bio goes to the provider of the memory, which waits for it.
#
# As virtio_pmem of 7.2 does; in 7.3 it fails them.
# quick
# vm: provider 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	provider flush_delay 0
	provider_cleanup
}

# write_fua OPTION…: fio's status. No thread sleeps in the kernel for its bios, so that processes can be frozen.
write_fua() {
	fua_status=0
	fio --name=fua --filename="/dev/$DISK" --allow_file_create=0 --ioengine=io_uring --direct=1 --sync=dsync --rw=write --bs=4k "$@" \
		>/tmp/fio 2>&1 || fua_status=$?
	echo $fua_status
}

# fall_asleep [STATE]: has the system sleep, as a rule by freeze; prints the error text, if it refuses.
fall_asleep() {
	env echo "${1:-freeze}" 2>&1 >/sys/power/state | sed 's/.*write error: //'
}

# has_flushed COUNT: the provider has had more flushes than that.
has_flushed() {
	[ "$(provider flushes)" -gt "$1" ]
}

# check_sharing WHEN: durable writes at once have no flush each: 1 subtest.
check_sharing() {
	provider flush_delay 0
	provider bios 0
	case $DRIVER in
	rust_pmem) is "$1: durable writes share flushes" "$(write_fua --size=64k --iodepth=8) $(provider bios)" "0 0" ;;
	*) skip "$1: durable writes share flushes" "nd_pmem has a flush for each bio" ;;
	esac
}

need fio pkill
states="freeze disk"
# Not all kernels can hibernate.
[ -z "${KERNEL:-}" ] || states=$(grep -ow 'freeze\|disk' /sys/power/state | xargs)
# shellcheck disable=SC2086 # a list
set -- $states
plan $((4 + 5 * $#))
provide flush_async=1
for state; do
	provider flush_delay 3600000
	write_fua --size=4k >/tmp/status &
	writer=$!
	check "$state: a flush is under way" wait_for 30 grep -q Y /sys/module/pmem_provider/parameters/flushing
	provider flush_delay 4000
	is "$state: the provider refuses it" "$(fall_asleep "$state")" "Device or resource busy"
	is "$state: no flush was under way then" "$(provider flushing_asleep)" 0
	wait $writer
	is "$state: the write has no error" "$(cat /tmp/status)" 0
	check_sharing "$state: awake again"
done

provider flush_delay 0
provider flushes 0
write_fua --size=64k --time_based --runtime=600 --rate_iops=50 >/tmp/status &
writer=$!
check "many writes are under way" wait_for 30 has_flushed 20
provider bios 0
fall_asleep >/dev/null
check "meanwhile each went to the provider" test "$(provider bios)" -gt 5
# fio, which the writer waits for.
pkill -INT -P $writer || :
wait $writer
# An interrupted fio has this status if none of its jobs had an error.
is "they have no error" "$(sed s/^128$/0/ /tmp/status)" 0

check_sharing "awake again after these"
