#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On a CPU without fast strings (ERMS), a read of memory that fails is an error as well, and others get all bytes.
#
# The kernel has no copy that survives a fault there: nd_pmem ends in an oops.
# quick
# vm: no-erms
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/nvme-target.sh"
. "$(dirname "$0")/lib/provider.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "the C driver oopses in memcpy"
need nvme
cleanup() {
	{
		nvme disconnect -n pmem
		stop_export
		umount /sys/kernel/config
	} >/dev/null 2>&1
	# The page would stay unmapped for the tests that follow.
	provider unmap ""
	provider_cleanup
}

plan 10
check_fails "the CPU has no fast strings" grep -qw erms /proc/cpuinfo
provide pages=1
check "data" pmem-io fill --direct --length 4M "/dev/$DISK"
check "all of it" pmem-io verify --direct --length 4M "/dev/$DISK"
check "a sector at a time" pmem-io verify --direct --length 64K --block 512 "/dev/$DISK"
# By loop, the target passes the initiator's memory on, of which parts are not whole words.
mount -t configfs none /sys/kernel/config
modprobe -a nvmet nvme_loop
export_disk "$DISK"
add_port 1 trtype loop
connect_remote -t loop
check "into memory at an odd multiple of 4" pmem-io verify --direct --misalign 4 --length 64K "/dev/$(remote_disk)"
provider unmap 1M
check_fails "an unmapped page" read_sectors "$DISK" 2048 8
check_fails "a bio that it is in" read_sectors "$DISK" 2040 24
check "the pages before" pmem-io verify --direct --length 1M "/dev/$DISK"
is "it is listed then" "$(cat "/sys/block/$DISK/device/errors/list")" "1048576 4096 memory-failure"
pattern behind_ 8 | write_sectors "$DISK" 2048 8
is "a write repairs it" "$(read_sectors "$DISK" 2048 8 | md5sum) $(badblocks_of "$DISK")" "$(pattern behind_ 8 | md5sum) "
