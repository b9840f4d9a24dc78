#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An unbind under io_uring, nowait and durable I/O makes all of it fail soon, and a new bind works.
# vm: provider 2
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/busy.sh"
. "$(dirname "$0")/lib/provider.sh"

# test_unbind NAME OPTION OF fio…: unbinds while fio reads and writes, and binds again.
test_unbind() {
	name=$1
	shift
	start_fio "/dev/$DISK" --filename="/dev/$DISK" --direct=1 --size=16M --numjobs=2 --time_based --runtime=120 "$@"
	check "$name: at work until then" kill -0 "$fio_pid"
	echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	start=$(date +%s)
	status=0
	wait "$fio_pid" || status=$?
	check "$name: it ends soon" test $(($(date +%s) - start)) -lt 60
	check "$name: with I/O errors alone" fio_has_failed
	wait_for 60 bind_again
	check "$name: bound again, it reads" read_sectors "$DISK" 0 8
}

# fio_has_failed: whether fio has ended by itself, with nothing but errors of a disk that is gone, which it prints.
fio_has_failed() {
	echo "status $status"
	[ "$status" -gt 0 ] && [ "$status" -lt 128 ] || return
	sed -n 's/.*io_u error on file [^:]*: \(.*\): [a-z]* offset=.*/\1/p' /tmp/fio.errors | sort | uniq -c >/tmp/fio.kinds
	cat /tmp/fio.kinds
	[ -s /tmp/fio.kinds ] || return
	! grep -v 'Input/output error\|No space left on device\|No such device' /tmp/fio.kinds
}

# io_uring releases the disk some time after its process has ended.
bind_again() {
	echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind" 2>/dev/null && [ -b "/dev/$DISK" ]
}

need fio
if [ "$DRIVER" = rust_pmem ]; then
	plan 16
else
	plan 8
fi
provide pages=1 flush_async=1
test_unbind "io_uring" --ioengine=io_uring --iodepth=16
test_unbind "io_uring, registered" --ioengine=io_uring --iodepth=16 --fixedbufs=1 --registerfiles=1
# The C driver fails these with EOPNOTSUPP.
if [ "$DRIVER" = rust_pmem ]; then
	test_unbind "not to wait" --ioengine=pvsync2 --nowait=1
	provider flush_delay 20
	test_unbind "durable, waiting" --ioengine=io_uring --iodepth=8 --sync=dsync
	provider flush_delay 0
fi
