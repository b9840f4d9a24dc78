#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On virtio-pmem, each kind of I/O sends the recorded number of flush requests to the host.
#
# Counts the interrupts that complete the requests.
# compare
# vm: three
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/flush-count.sh"

need python3
cleanup() {
	umount $MNT 2>/dev/null
}

# provider flushes [0]: the number of flush requests since it was set to 0; replaces the function for the provider
# module.
provider() {
	requests=$(virtio_flushes "$virtio")
	[ $# -eq 1 ] || {
		echo "$requests" >/tmp/requests
		return
	}
	echo $((requests - $(cat /tmp/requests)))
}

plan 12
mkdir -p $MNT
load_driver_anew
virtio=$(basename "$(readlink -f "$ND/$(virtio_ns)/../../..")")
disk=$(raw_disk "$(virtio_ns)")
exec 5<"/dev/$disk"
record "the disk: write cache and FUA" "$(cat "/sys/block/$disk/queue/write_cache" "/sys/block/$disk/queue/fua")"
record "a direct write" "$(count_flushes file_io "/dev/$disk" direct write:4096)"
is "a direct write and fsync" "$(count_flushes file_io "/dev/$disk" direct write:4096 fsync)" 1
record "RWF_DSYNC" "$(count_flushes file_io "/dev/$disk" direct dsync:4096)"
record "two times fsync" "$(count_flushes file_io "/dev/$disk" direct fsync fsync)"
exec 5<&-
make_fs ext4 "$disk" -E lazy_itable_init=0,lazy_journal_init=0
for dax in never always; do
	mount -o dax=$dax,noatime "/dev/$disk" $MNT
	truncate -s 1M $MNT/file
	pmem-io fill $MNT/file
	sync
	record "ext4, dax=$dax: overwritten and fdatasync" "$(count_flushes file_io $MNT/file cached write:4096 fdatasync)"
	record "ext4, dax=$dax: a mapping and msync" "$(count_flushes pmem-io map-write $MNT/file --durable msync --seed 2)"
	umount $MNT
done
record "rmmod" "$(count_flushes unload_driver)"
load_driver
check "what was synced is there" sh -c "mount -o dax=always /dev/$disk $MNT && pmem-io map-verify $MNT/file --seed 2"
umount $MNT
record_result "the region says nothing of deep_flush" sh -c "ls $ND/$(region_of virtio-pmem)/deep_flush 2>&1 | sed 's/.*: //'"
