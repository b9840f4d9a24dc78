#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# fio verifies what it wrote with each I/O engine, at any sector and from unaligned buffers, with several jobs at once.
#
# Block sizes from 512 bytes to 129 sectors, in fsdax, raw and sector mode, with deep queues of io_uring; in raw mode also with a
# kernel thread that submits.
# compare
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"

need fio

# verify_engine ENGINE [OPTION OF fio…]: three jobs on $size each of the disk.
verify_engine() {
	engine=$1
	shift
	fio --name=mixed --filename="/dev/$disk" --randseed=1 --rw=randwrite --numjobs=3 \
		--offset_increment=9M --size="$size" --bssplit=512/20:1536/20:4608/20:33280/20:66048/20 --blockalign=512 \
		--iomem_align=512 --iodepth=8 --ioengine="$engine" --verify=crc32c --verify_fatal=1 --verify_dump=0 \
		--output-format=terse "$@"
}

plan 19
load_driver
size=1M
for mode in fsdax raw sector; do
	case $mode in
	fsdax) disk=$(labelled_disk -m fsdax -M dev -s 64M) ;;
	raw) disk=$(plain_disk) ;;
	sector)
		disk=$(labelled_disk -m sector -l 512 -s 64M)
		# Each sector is an entry of the map, which takes long.
		size=512K
		;;
	esac
	check "$mode: io_uring" verify_engine io_uring --direct=1 --iodepth=32
	check "$mode: io_uring, registered buffers" verify_engine io_uring --direct=1 --iodepth=32 --fixedbufs --registerfiles
	check "$mode: io_submit" verify_engine libaio --direct=1
	check "$mode: pwrite and fdatasync" verify_engine psync --direct=1 --fdatasync=16
	check "$mode: pwritev2 with RWF_DSYNC" verify_engine pvsync2 --direct=1 --sync=dsync
	check "$mode: by the page cache, and fsync" verify_engine psync --fsync=64
	[ $mode != raw ] ||
		check "submitted by a kernel thread" verify_engine io_uring --direct=1 --iodepth=32 --sqthread_poll=1 --numjobs=1 --size=1M
done
