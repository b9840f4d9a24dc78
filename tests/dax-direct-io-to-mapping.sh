#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Direct I/O with a mapping of a DAX file as its buffer transfers the data correctly in both directions.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# fio_job NAME FILE OPTION…: fio with a buffer of 1 MiB in a DAX file.
fio_job() {
	name=$1 file=$2
	shift 2
	fio --name="$name" --filename="$file" --size=1M --bs=1M --direct=1 --ioengine=psync --mem=mmapshared:$MNT/buffer --minimal "$@"
}

plan 7
need fio
load_driver
other=$(plain_disk)
disk=$(labelled_disk -m fsdax -M mem)
make_fs ext4 "$disk"
mount_dax "$disk"
# Larger than fio's buffer, which begins at the start of the file.
fallocate -l 2M $MNT/buffer

pmem-io fill --direct --length 1M "/dev/$other"
check "read from a disk into a DAX file's mapping" fio_job read "/dev/$other" --rw=read
check "the file has it" pmem-io verify --length 1M $MNT/buffer
blkdiscard -f -z -l 1M "/dev/$other" 2>/dev/null
check "written from the mapping to the disk" fio_job write "/dev/$other" --rw=write
check "the same is on both" cmp -n 1048576 $MNT/buffer "/dev/$other"
check "and it is not nothing" sh -c "! cmp -s -n 4096 $MNT/buffer /dev/zero"
check "from the mapping to a file of the same file system" fio_job copy $MNT/copy --rw=write
check "the same is in both" cmp -n 1048576 $MNT/buffer $MNT/copy
