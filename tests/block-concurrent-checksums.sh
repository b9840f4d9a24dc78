#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Four concurrent writers of random sizes and offsets, with deep queues and odd buffers, write no block to a wrong
# place.
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"

# fio_verify_jobs NAME OPTIONS OF fio…: four jobs, each in its own area, write and then verify.
fio_verify_jobs() {
	name=$1
	shift
	check "$name" fio --name=job --filename="/dev/$disk" --numjobs=4 --group_reporting --size=3584000 --offset_increment=4M --direct=1 \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --minimal "$@"
}

plan 4
need fio
load_driver
disk=$(plain_disk)
fio_verify_jobs "512 bytes to 64 KiB, random" --rw=randwrite --bsrange=512-64k --blockalign=512
fio_verify_jobs "buffers at odd multiples of 512 bytes" --rw=write --bs=3584 --mem_align=512
fio_verify_jobs "half a megabyte, two at a time" --rw=write --bs=512000 --ioengine=libaio --iodepth=2
fio_verify_jobs "through the page cache" --rw=randwrite --bs=4k --size=2M --direct=0 --fsync=64
