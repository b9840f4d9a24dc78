#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A flush that the host does not end is logged with the name of the disk; its waiters and unbind go on when it ends.
# vm: provider 2
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

MESSAGE="$DRIVER namespace[0-9.]*: pmem[0-9]*:"
HUNG=/proc/sys/kernel/hung_task_timeout_secs
hung=$(cat $HUNG)

cleanup() {
	echo "$hung" >$HUNG
	provider flush_delay 0
	provider_cleanup
}

# logged TEXT: the number of the driver's messages about this disk with the text.
logged() {
	dmesg | grep "$MESSAGE" | grep -c "$1"
}

# running PID…: prints the processes that have not ended.
running() {
	for pid; do
		[ ! -e "/proc/$pid" ] || printf '%s ' "$pid"
	done
}

plan 10
# The waiters wait for longer than the kernel takes to report hung tasks here.
echo 0 >$HUNG
dmesg -C
provide flush_async=1
pattern aaaaaaa 8 >/tmp/data

# Longer than any test.
provider flush_delay 3600000
dd if=/tmp/data of="/dev/$DISK" bs=4k oflag=direct conv=notrunc,fsync status=none 2>/tmp/first &
FIRST=$!
check "a flush is under way" wait_for 30 grep -q Y /sys/module/pmem_provider/parameters/flushing
dd if=/tmp/data of="/dev/$DISK" bs=4k seek=1 oflag=direct conv=notrunc,fsync status=none 2>/tmp/second &
SECOND=$!
sleep 1
dd if="/dev/$DISK" bs=4k count=1 iflag=direct status=none >/tmp/read
check "reads do not wait for it" cmp /tmp/data /tmp/read
if [ "$DRIVER" = rust_pmem ]; then
	deadline=$(($(date +%s) + 60))
	while [ "$(logged 'not ended a flush for 30 s')" = 0 ] && [ "$(date +%s)" -lt $deadline ]; do
		sleep 1
	done
	is "it is logged after 30 seconds" "$(logged 'not ended a flush for 30 s')" 1
else
	skip "it is logged after 30 seconds" "nd_pmem does not"
fi
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind" &
UNBIND=$!
sleep 1
is "two processes in fsync wait, and so does unbind" "$(running $FIRST $SECOND $UNBIND)" "$FIRST $SECOND $UNBIND "

provider flush_delay 0
wait $FIRST && status=0 || status=$?
is "fsync succeeds once the host answers" "status $status" "status 0"
wait $SECOND && status=0 || status=$?
is "and the other one" "status $status" "status 0"
wait $UNBIND && status=0 || status=$?
is "and unbind" "status $status" "status 0"
if [ "$DRIVER" = rust_pmem ]; then
	is "its end is logged" "$(logged 'not ended a flush') $(logged 'the flush has ended')" "1 1"
else
	skip "its end is logged" "nd_pmem does not"
fi
check "the namespace can be bound again" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/bind"
DISK=$(disk_of "$NAMESPACE")
cat /tmp/data /tmp/data >/tmp/both
check "with the data" cmp -n 8192 /tmp/both "/dev/$DISK"
