#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A write to a reflinked DAX file copies the shared blocks, and the other file keeps its bytes.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# By system calls only: a store to a mapping of a shared block is a BUG of 7.2's fs/dax.c, with any driver.

cleanup() {
	umount $MNT 2>/dev/null
}

plan 6
load_driver
disk=$(labelled_disk -m fsdax -M mem)
make_fs xfs "$disk" -m reflink=1
mount_dax "$disk"
truncate -s 1M $MNT/one
pmem-io fill $MNT/one
check "a copy that shares all blocks" cp --reflink=always $MNT/one $MNT/two
check "it has the bytes" pmem-io verify $MNT/two
check "written in the middle" pmem-io pwrite --offset 100000 --length 30000 --seed 2 $MNT/two
check "the copy has what was written" pmem-io verify --offset 100000 --length 30000 --seed 2 $MNT/two
check "and the rest as before" sh -c "pmem-io verify --length 100000 $MNT/two && pmem-io verify --offset 130000 $MNT/two"
check "the first has its own bytes" pmem-io verify $MNT/one
