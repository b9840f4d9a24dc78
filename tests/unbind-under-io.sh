#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An unbind under I/O makes the I/O fail, and a new bind works.
# vm: provider 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/busy.sh"
. "$(dirname "$0")/lib/provider.sh"

# test_under_fio FUNCTION: calls it while fio reads and writes, and waits until fio has ended.
test_under_fio() {
	start_fio "/dev/$DISK" --filename="/dev/$DISK" --direct=1 --size=32M --ioengine=libaio --iodepth=8 --numjobs=2 --time_based --runtime=120
	"$1"
	start=$(date +%s)
	status=0
	wait "$fio_pid" || status=$?
	check "$1: fio ends soon" test $(($(date +%s) - start)) -lt 60
	check "$1: with errors" test "$status" -ne 0
}

unbind() {
	echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
}

region_off() {
	ndctl disable-region -b pmem_provider all >/dev/null 2>&1
}

need fio pmem-io
plan 8
provide pages=1
test_under_fio unbind
check_fails "no disk" test -e "/sys/block/$DISK"
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
check "bound again, it reads" read_sectors "$DISK" 0 8

test_under_fio region_off
ndctl enable-region -b pmem_provider all >/dev/null 2>&1
settle
check "the region enabled, it reads" read_sectors "$DISK" 0 8
check "and writes" pmem-io fill --direct --length 4K "/dev/$DISK"
