#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Checksums that tell their own place survive four writers at a time: random sizes and offsets, deep queues, buffers anywhere.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# verified NAME OPTIONS OF fio…: writes, then reads and verifies, in an area of its own for each of four jobs.
verified() {
	name=$1
	shift
	check "$name" fio --name=job --filename="/dev/$disk" --numjobs=4 --group_reporting --size=3584000 --offset_increment=4M --direct=1 \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --minimal "$@"
}

plan 4
need fio
load_driver
disk=$(plain_disk)
verified "512 bytes to 64 KiB, random" --rw=randwrite --bsrange=512-64k --blockalign=512
verified "buffers at odd multiples of 512 bytes" --rw=write --bs=3584 --mem_align=512
verified "half a megabyte, two at a time" --rw=write --bs=512000 --ioengine=libaio --iodepth=2
verified "through the page cache" --rw=randwrite --bs=4k --size=2M --direct=0 --fsync=64
