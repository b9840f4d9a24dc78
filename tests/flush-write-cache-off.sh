#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# dax/write_cache only decides whether a file system writes back CPU caches for DAX.
#
# It changes neither the queue's attributes, nor the number of flushes, nor any data.
# compare
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/flush-count.sh"

need python3
# test_value VALUE: 7 subtests.
test_value() {
	echo "$1" >"/sys/block/$DISK/dax/write_cache"
	is "$1: read back" "$(cat "/sys/block/$DISK/dax/write_cache")" "$1"
	is "$1: the queue" "$(cat "/sys/block/$DISK/queue/write_cache" "/sys/block/$DISK/queue/fua" | tr '\n' ' ')" "write back 1 "
	record "$1: a direct write and fsync of the disk" "$(count_flushes file_io "/dev/$DISK" direct write:4096 fsync)"
	record "$1: RWF_DSYNC of the disk" "$(count_flushes file_io "/dev/$DISK" direct dsync:4096)"
	mkfs.ext4 -q -F -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 "/dev/$DISK"
	mount -o dax=always,noatime "/dev/$DISK" $MNT
	truncate -s 1M $MNT/file
	pmem-io fill $MNT/file
	sync
	record "$1: a mapping of a DAX file and fdatasync" "$(count_flushes pmem-io map-write $MNT/file --durable msync --seed 2)"
	umount $MNT
	rebind "$NAMESPACE"
	mount -o dax=always,noatime "/dev/$DISK" $MNT
	check "$1: what was stored is there" pmem-io map-verify $MNT/file --seed 2
	umount $MNT
	record "$1: the driver was away" "$(cat "/sys/block/$DISK/dax/write_cache")"
}

# write_value TEXT: the result of the write, and the value after it.
write_value() {
	env printf "$1" 2>&1 >"/sys/block/$DISK/dax/write_cache" | sed 's/.*write error: //'
	cat "/sys/block/$DISK/dax/write_cache"
}

plan 31
provide pages=1
mkdir -p $MNT
is "the file's mode" "$(stat -c %a "/sys/block/$DISK/dax/write_cache")" 644
record "at first" "$(cat "/sys/block/$DISK/dax/write_cache")"
test_value 0
test_value 1
for text in y n on off Y 2 00 1x -1 '' '\n' ' 1' '0\n' ; do
	record "the answer to '$text'" "$(write_value "$text")"
done
record "the answer to 64 KiB of text" "$(head -c 65536 /dev/zero | tr '\0' 1 >/tmp/text; env cat /tmp/text 2>&1 >"/sys/block/$DISK/dax/write_cache" |
	sed 's/.*: //'; cat "/sys/block/$DISK/dax/write_cache")"
provider_cleanup
provide pages=0
record_result "memory without struct pages" sh -c "cat /sys/block/$DISK/dax/write_cache 2>&1 | sed 's/.*: //'"
