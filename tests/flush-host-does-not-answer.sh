#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A flush that the host does not end is in the log with the disk's name; when it ends, so does all that waits, and unbind.
# vm: --bare --append memmap=128M$512M --cpus 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

MESSAGE="$DRIVER namespace[0-9.]*: pmem[0-9]*: the host has"

cleanup() {
	provider flush_delay 0
	provider_cleanup
}

# in_log TEXT: how often the driver's messages about the host have this text.
in_log() {
	dmesg | grep "$MESSAGE" | grep -c "$1"
}

# running PID…: prints the processes that have not ended.
running() {
	for pid; do
		[ ! -e "/proc/$pid" ] || printf '%s ' "$pid"
	done
}

plan 9
provide flush_async=1
pattern aaaaaaa 8 >/tmp/data

# Longer than any test.
provider flush_delay 3600000
dd if=/tmp/data of="/dev/$DISK" bs=4k oflag=direct conv=notrunc,fsync status=none 2>/tmp/first &
FIRST=$!
sleep 1
dd if=/tmp/data of="/dev/$DISK" bs=4k seek=1 oflag=direct conv=notrunc,fsync status=none 2>/tmp/second &
SECOND=$!
dd if="/dev/$DISK" bs=4k count=1 iflag=direct status=none >/tmp/read
check "reads do not wait for it" cmp /tmp/data /tmp/read
if [ "$DRIVER" = rust_pmem ]; then
	check "after 30 seconds the log says so" wait_for 45 sh -c "dmesg | grep -q '$MESSAGE not ended a flush for 30 s'"
else
	skip "after 30 seconds the log says so" "nd_pmem does not"
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
	is "the log says that it has ended, once" "$(in_log 'not ended a flush') $(in_log 'ended the flush')" "1 1"
else
	skip "the log says that it has ended, once" "nd_pmem does not"
fi
check "the namespace can be bound again" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/bind"
DISK=$(disk_of "$NAMESPACE")
cat /tmp/data /tmp/data >/tmp/both
check "with the data" cmp -n 8192 /tmp/both "/dev/$DISK"
