#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Four concurrent writers in a DAX file system, through mappings and by system calls, write no block to a wrong place.
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# fio_verify_jobs NAME OPTION OF fio…: four jobs, each in its own file.
fio_verify_jobs() {
	name=$1
	shift
	check "$name" fio --name=job --directory=$MNT --numjobs=4 --group_reporting --size=512K --rw=randwrite --bs=4k \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --minimal "$@"
}

# test_writers TYPE
test_writers() {
	make_fs "$1" "$disk"
	mount_dax "$disk"
	fio_verify_jobs "$1: through mappings" --ioengine=mmap
	fio_verify_jobs "$1: by write(2)" --ioengine=psync --bs=3000
	fio_verify_jobs "$1: direct, many at a time" --ioengine=libaio --iodepth=8 --direct=1
	umount $MNT
}

plan 6
need fio
load_driver
disk=$(labelled_disk -m fsdax -M mem)
test_writers ext4
test_writers xfs
