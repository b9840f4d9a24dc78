#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On memory with flush hints, FUA writes are durable without an fsync.
# soak
# vm: powerfail-provider 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/powerfail.sh"

# write_async --sync=MODE: asynchronous O_DIRECT writes. Only these rely on FUA; others are followed by a flush of the disk.
write_async() {
	fio --name=fua --ioengine=io_uring --direct=1 --rw=write --bs=4k --size=64k --filename="/dev/$DISK" "$@" --output=/tmp/fio
}

plan 5
need fio
# The plugin of a guest that another test has used already follows stores: keep=1 does not fill the memory.
provide dimm=1 keep=1
is "FUA is passed to the driver" "$(cat "/sys/block/$DISK/queue/fua")" 1
watch_stores
write_async --sync=none
check "plain writes are not durable" [ "$(undurable)" -gt 0 ]
check "fsync" pmem-io fill "/dev/$DISK" --length 4K
is_durable "O_DSYNC writes by io_uring" write_async --sync=dsync
is_durable "O_DIRECT and fsync" dd if=/dev/zero of="/dev/$DISK" bs=4k count=4 oflag=direct conv=fsync
