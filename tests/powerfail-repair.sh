#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A repaired page is durable when it leaves the lists on a bus that can't clear poison, and after an fsync on others.
# soak
# vm: powerfail-provider 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/powerfail.sh"

# repair NAME COMMAND…: the command, which does not flush, repairs the page of the disk at 1M, and it is durable: 2 subtests.
repair() {
	echo "add $((1 << 20)) 4096" >"/sys/block/$DISK/device/errors/list"
	is_durable "$@"
	is_empty "$1: nothing is listed" badblocks_of "$DISK"
}

case $DRIVER in
rust_pmem) plan 9 ;;
*) plan 3 ;;
esac
head -c 4096 /dev/urandom >/tmp/data
# The plugin of a guest that another test has used already follows stores: keep=1 does not fill the memory.
provide dimm=0 bad=1M+4K keep=1
watch_stores
dd if=/tmp/data of="/dev/$DISK" bs=4k seek=512 oflag=direct conv=notrunc status=none
check "a plain write is seen" [ "$(undurable)" -gt 0 ]
sync "/dev/$DISK"
is_durable "clear poison, fsync" dd if=/tmp/data of="/dev/$DISK" bs=4k seek=256 oflag=direct conv=notrunc,fsync
is_empty "clear poison, fsync: nothing is listed" badblocks_of "$DISK"

# nd_pmem unlists the sectors at any write, without a look at the memory.
if [ "$DRIVER" = rust_pmem ]; then
	provider_cleanup
	provide dimm=0 commands=0 keep=1
	repair "overwrite and verify" dd if=/tmp/data of="/dev/$DISK" bs=4k seek=256 oflag=direct conv=notrunc
	repair "zero and verify" fallocate -z -o 1M -l 4K "/dev/$DISK"
	echo "add $((1 << 20)) 4096" >"/sys/block/$DISK/device/errors/list"
	is_durable "drop" sh -c "echo drop $((1 << 20)) 4096 >/sys/block/$DISK/device/errors/list"
	is_empty "drop: nothing is listed" badblocks_of "$DISK"
fi
