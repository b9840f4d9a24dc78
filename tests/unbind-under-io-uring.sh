#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A namespace that is unbound under io_uring, under who polls for ends, under who does not want to wait, and while durable writes wait for the host: all of it ends with errors, soon, and a new binding serves again.
# vm: --bare --append memmap=128M$512M
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# unbound_under NAME OPTION OF fio…: unbinds while fio writes and reads with verification, and binds again.
unbound_under() {
	name=$1
	shift
	fio --name=busy --filename="/dev/$DISK" --direct=1 --rw=randrw --bs=4k --size=16M --numjobs=2 --time_based --runtime=30 "$@" \
		>/tmp/fio 2>&1 &
	fio=$!
	wait_for 10 in_use || :
	sleep 1
	check "$name: at work until then" kill -0 "$fio"
	echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	begin=$(date +%s)
	status=0
	wait "$fio" || status=$?
	check "$name: it ends soon" test $(($(date +%s) - begin)) -lt 15
	check "$name: with errors" test "$status" -ne 0
	wait_for 10 bound
	check "$name: bound again, it reads" read_sectors "$DISK" 0 8
}

in_use() {
	[ -n "$(find /proc/[0-9]*/fd -lname "/dev/$DISK" 2>/dev/null)" ]
}

# io_uring lets go of the disk some time after its process has ended.
bound() {
	echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind" 2>/dev/null && [ -b "/dev/$DISK" ]
}

need fio
if [ "$DRIVER" = rust_pmem ]; then
	plan 24
else
	plan 8
fi
provide pages=1 flush_async=1
unbound_under "io_uring" --ioengine=io_uring --iodepth=16
unbound_under "io_uring, registered" --ioengine=io_uring --iodepth=16 --fixedbufs=1 --registerfiles=1
# C answers these with EOPNOTSUPP.
if [ "$DRIVER" = rust_pmem ]; then
	unbound_under "polled" --ioengine=io_uring --hipri --iodepth=16
	unbound_under "not to wait" --ioengine=pvsync2 --nowait=1
	provider flush_delay 20
	unbound_under "durable, waiting" --ioengine=io_uring --iodepth=8 --sync=dsync
	unbound_under "durable, polled" --ioengine=io_uring --hipri --iodepth=8 --sync=dsync
	provider flush_delay 0
fi
