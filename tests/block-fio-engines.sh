#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# fio verifies what it wrote with each I/O engine, at any sector and from unaligned buffers, with several jobs at once.
#
# Block sizes from 512 bytes to 129 sectors, in fsdax, raw and sector mode.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M --cpus 2
. "$(dirname "$0")/lib/test.sh"

need fio

# test_engine NAME ENGINE [OPTION OF fio…]: three jobs on 2 MiB each of the disk.
test_engine() {
	engine_name=$1
	engine=$2
	shift 2
	check "$mode: $engine_name" fio --name=mixed --filename="/dev/$disk" --randseed=1 --rw=randwrite --numjobs=3 \
		--offset_increment=9M --size=2M --bssplit=512/20:1536/20:4608/20:33280/20:66048/20 --blockalign=512 \
		--iomem_align=512 --iodepth=8 --ioengine="$engine" --verify=crc32c --verify_fatal=1 --verify_dump=0 \
		--output-format=terse "$@"
}

plan 18
load_driver
for mode in fsdax raw sector; do
	case $mode in
	fsdax) disk=$(labelled_disk -m fsdax -M dev -s 64M) ;;
	raw) disk=$(plain_disk) ;;
	sector) disk=$(labelled_disk -m sector -l 512 -s 64M) ;;
	esac
	test_engine "io_uring" io_uring --direct=1
	test_engine "io_uring, registered buffers" io_uring --direct=1 --fixedbufs --registerfiles
	test_engine "io_submit" libaio --direct=1
	test_engine "pwrite and fdatasync" psync --direct=1 --fdatasync=16
	test_engine "pwritev2 with RWF_DSYNC" pvsync2 --direct=1 --sync=dsync
	test_engine "by the page cache, and fsync" psync --fsync=64
done
