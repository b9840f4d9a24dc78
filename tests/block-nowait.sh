#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A nowait request is served, also where it has to repair a page; a polled one is refused.
# quick
# vm: three
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

cleanup() {
	dmsetup remove_all --noudevsync --noudevrules
	[ -z "${disk:-}" ] || forget_errors "$disk"
}

# nowait_io COMMAND OF pmem-io…: the number of bytes, or the error.
nowait_io() {
	pmem-io "$@" --direct 2>&1 | sed 's/.*: //; s/ (.*//'
}

# polled_io DISK: the error of requests that are polled for.
polled_io() {
	fio --name=polled --filename="/dev/$1" --ioengine=io_uring --hipri --direct=1 --bs=4k --rw=randread --size=1M \
		--output-format=terse 2>&1 | sed -n 's/.*: \(Operation not supported\): read.*/\1/p'
}

[ "$DRIVER" = rust_pmem ] || skip_all "C always answers EOPNOTSUPP"
need dmsetup fio
plan 15
load_driver
disk=$(e820_disk)
virtio=$(disk_of "$(virtio_ns)")
is "a write" "$(nowait_io pwrite --nowait --length 64K "/dev/$disk")" 65536
is "a read" "$(nowait_io pread --nowait --length 64K "/dev/$disk")" 65536
echo "add 4096 512" >"/sys/block/$disk/device/errors/list"
is "a read of an error" "$(nowait_io pread --nowait --offset 4K --length 4K "/dev/$disk")" "Input/output error"
is "a write beside it" "$(nowait_io pwrite --nowait --offset 8K --length 4K "/dev/$disk")" 4096
is "the error is listed" "$(cat "/sys/block/$disk/badblocks")" "8 1"
is "a write over it" "$(nowait_io pwrite --nowait --seed 2 --length 8K "/dev/$disk")" 8192
is_empty "the error is not listed any more" cat "/sys/block/$disk/badblocks"
check "it has the data" pmem-io verify --direct --seed 2 --length 8K "/dev/$disk"
is "virtio-pmem: a write" "$(nowait_io pwrite --nowait --length 4K "/dev/$virtio")" 4096
is "virtio-pmem: a durable write, which the host flushes" "$(nowait_io pwrite --nowait --dsync --length 4K "/dev/$virtio")" 4096
# dm-stripe takes any error of a bio but EOPNOTSUPP for one of the disk.
dm_create nowait "0 65536 striped 2 256 /dev/$virtio 0 /dev/$virtio 65536"
check "virtio-pmem: durable writes to stripes on it" fio --name=stripes --filename=/dev/mapper/nowait --ioengine=io_uring --direct=1 \
	--rw=write --sync=dsync --bs=4k --iodepth=8 --size=8M --output-format=terse
is "no stripe is marked as failed" "$(dmsetup status nowait | grep -o '[AD]*$')" AA
dm_remove nowait
is "it can't be polled" "$(cat "/sys/block/$disk/queue/io_poll")" 0
is "a polled read" "$(polled_io "$disk")" "Operation not supported"
is "virtio-pmem: a polled read" "$(polled_io "$virtio")" "Operation not supported"
