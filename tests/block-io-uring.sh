#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# io_uring keeps the data intact with deep queues, registered buffers and a submitting kernel thread.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

fio_verify_uring() {
	name=$1
	shift
	check "$name" fio --name=job --filename="/dev/$disk" --size=4M --rw=randwrite --bs=4k --direct=1 --ioengine=io_uring --iodepth=32 \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --minimal "$@"
}

plan 3
need fio
load_driver
disk=$(plain_disk)
fio_verify_uring "plain"
fio_verify_uring "registered buffers and files" --fixedbufs=1 --registerfiles=1
fio_verify_uring "submitted by a kernel thread" --sqthread_poll=1 --size=1M
