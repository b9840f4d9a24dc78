#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Four writers at a time in a DAX file system, through mappings and by calls: checksums that tell their own place survive.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# verified NAME OPTION OF fio…: in a file of its own for each of four jobs.
verified() {
	name=$1
	shift
	check "$name" fio --name=job --directory=$MNT --numjobs=4 --group_reporting --size=512K --rw=randwrite --bs=4k \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --minimal "$@"
}

# survives TYPE
survives() {
	make_fs "$1" "$disk"
	mount_dax "$disk"
	verified "$1: through mappings" --ioengine=mmap
	verified "$1: by write(2)" --ioengine=psync --bs=3000
	verified "$1: direct, many at a time" --ioengine=libaio --iodepth=8 --direct=1
	umount $MNT
}

plan 6
need fio
load_driver
disk=$(labelled_disk -m fsdax -M mem)
survives ext4
survives xfs
