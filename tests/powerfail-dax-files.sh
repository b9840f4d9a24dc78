#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Data of DAX files that was acknowledged as durable is on the medium, and with it the journal that finds it.
# soak
# timeout: 300
# vm: powerfail-nvdimm 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/powerfail.sh"

cleanup() {
	umount $MNT 2>/dev/null
	raw_disk "$(nfit_ns)" >/dev/null
}

# test_files TYPE OPTIONS OF mkfs…
test_files() {
	type=$1
	shift
	make_fs "$type" "$disk" "$@" >/dev/null
	mount_dax "$disk"
	fallocate -l 64k $MNT/mapped
	pmem-io fill $MNT/mapped
	sync
	watch_stores
	is_durable "$type: write and fsync" dd if=/tmp/data of=$MNT/fsync bs=4k conv=fsync
	is_durable "$type: the same data again" dd if=/tmp/data of=$MNT/fsync bs=4k conv=fsync,notrunc
	is_durable "$type: O_DSYNC" dd if=/tmp/data of=$MNT/dsync bs=4k oflag=dsync
	is_durable "$type: O_SYNC" dd if=/tmp/data of=$MNT/sync bs=4k oflag=sync
	is_durable "$type: O_DIRECT and fsync" dd if=/tmp/data of=$MNT/direct bs=4k oflag=direct conv=fsync
	is_durable "$type: MAP_SYNC and cache write-back" pmem-io map-write $MNT/mapped --sync --durable flush --seed 1
	is_durable "$type: msync" pmem-io map-write $MNT/mapped --durable msync --seed 2
	pmem-io map-write $MNT/mapped --sync --durable none --seed 3
	check "$type: stores without a write-back are not" [ "$(undurable)" -ge 1024 ]
	umount $MNT
	is "$type: unmounted" "$(undurable)" 0
}

plan 18
load_driver
disk=$(make_fsdax "$(nfit_ns)")
head -c 64k /dev/urandom >/tmp/data
test_files ext4 -E lazy_itable_init=0,lazy_journal_init=0
test_files xfs
