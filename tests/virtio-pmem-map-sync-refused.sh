#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# MAP_SYNC is refused on virtio-pmem, also on dm-linear and with struct pages; other mappings work as elsewhere.
#
# In a guest of its own: without patches/0003, a dm device may inherit the flags of a freed device of device DAX.
# compare
# vm: --bare --virtio-pmem size=96M
. "$(dirname "$0")/lib/test.sh"

refusal="pmem-io: mmap: Operation not supported (os error 95)"

cleanup() {
	umount $MNT 2>/dev/null
	dmsetup remove part 2>/dev/null
}

# test_file_system NAME TYPE DISK OPTION…
test_file_system() {
	name=$1 type=$2 disk=$3
	shift 3
	make_fs "$type" "$disk" "$@"
	check "$name: mounted with DAX" mount_dax "$disk"
	fallocate -l 4M $MNT/file
	is "$name: MAP_SYNC" "$(pmem-io map --sync $MNT/file store 2>&1)" "$refusal"
	check "$name: a mapping and fsync" pmem-io map-write --durable fsync $MNT/file
	check "$name: a mapping and msync" pmem-io map-write --seed 2 --durable msync $MNT/file
	record "$name: the kernel with its pages" \
		"$(pmem-io map --seed 2 --length 2M $MNT/file verify vmsplice process-read process-write sendfile zerocopy lock)"
	is "$name: kept by an io_uring" "$(pmem-io map $MNT/file pin 2>&1)" "pmem-io: pin: Operation not supported (os error 95)"
	umount $MNT
	mount_dax "$disk"
	check "$name: mounted again, it is there" pmem-io map-verify --seed 2 $MNT/file
	umount $MNT
}

plan 24
need dmsetup
modprobe dm-mod
load_driver
whole=$(disk_of "$(virtio_ns)")
test_file_system ext4 ext4 "$whole"
# XFS does not support a disk this small.
test_file_system XFS xfs "$whole" --unsupported
echo "0 65536 linear /dev/$whole 8192" | dmsetup create part
dmsetup mknodes
test_file_system linear ext4 mapper/part
dmsetup remove part
namespace=$(virtio_ns)
is "the region is not synchronous: no FUA" "$(cat "/sys/block/$whole/queue/fua")" 0
is "the disk itself: MAP_SYNC" "$(pmem-io map --sync --length 4K "/dev/$whole" load 2>&1)" "$refusal"
disk=$(make_fsdax "$namespace" dev)
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 4K $MNT/file
is "map on the device: MAP_SYNC" "$(pmem-io map --sync $MNT/file store 2>&1)" "$refusal"
