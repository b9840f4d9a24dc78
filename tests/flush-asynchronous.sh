#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# With asynchronous flushes, a FUA write completes after its flush, fsync waits for its own, and so does unbind.
# vm: provider 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/busy.sh"
. "$(dirname "$0")/lib/provider.sh"

# milliseconds COMMAND…: how long the command takes, which must succeed.
milliseconds() {
	start=$(date +%s%N)
	"$@"
	echo $((($(date +%s%N) - start) / 1000000))
}

# is_written: the disk no longer begins with the first data.
is_written() {
	! read_sectors "$DISK" 0 8 | cmp -s - /tmp/data
}

need fio cmp
plan 8
provide flush_async=1
if [ "$DRIVER" = rust_pmem ]; then
	check "writeback needs no memory for a worker" sh -c "cat /proc/[0-9]*/comm 2>/dev/null | grep -q '^kworker/R-rust_'"
else
	skip "writeback needs no memory for a worker" "C's flushes have no worker"
fi
provider flush_delay 2000
pattern aaaaaaa 8 >/tmp/data

provider flushes 0
took=$(milliseconds dd if=/tmp/data of="/dev/$DISK" bs=4k oflag=direct,dsync status=none)
check "a FUA write and an fsync wait for both" test "$took" -ge 4000
is "which were flushed" "$(provider flushes)" 2
provider flush_delay 200
provider flushes 0
dd if=/tmp/data of="/dev/$DISK" bs=4k oflag=direct status=none
is "a plain write asks for none" "$(provider flushes)" 0
provider flush_fails 1
check_fails "a FUA write whose flush fails later" sh -c "dd if=/tmp/data of=/dev/$DISK bs=4k oflag=direct,dsync"
provider flush_fails 0

# Unbind while the provider still has the bio. An asynchronous write is not followed by an fsync.
provider flush_delay 60000
start_fio "/dev/$DISK" --filename="/dev/$DISK" --rw=write --size=4k --direct=1 --sync=dsync --ioengine=io_uring
wait_for 30 is_written
{
	sleep 1
	# Ends that flush. The one at the end of the unbind gives fio time to end.
	provider flush_delay 10000
	while fio_has_not_ended >/dev/null; do sleep 0.1; done
	provider flush_delay 0
} &
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
check_fails "unbind waits for what is in flight" fio_has_not_ended
provider flush_delay 0
status=0
wait "$fio_pid" || status=$?
is "which succeeds" "$status" 0
check "and the namespace can be taken again" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/bind"
