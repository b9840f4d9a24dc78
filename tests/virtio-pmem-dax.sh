#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# virtio-pmem supports DAX, and always refuses MAP_SYNC, because the host must be asked to make a store durable.
#
# Also on dm-linear, with struct pages on the device, and after a synchronous device of the other kind was unbound and rebound.
# First without other memory, and without DAX devices that were freed before: without patches/0003, a dm device may inherit their
# flags.
# compare
# quick
# vm: three
. "$(dirname "$0")/lib/test.sh"

refusal="pmem-io: mmap: Operation not supported (os error 95)"
answers=/tmp/virtio-pmem-dax.answers

need pmem-io dmsetup
cleanup() {
	umount $MNT 2>/dev/null
	dmsetup remove part 2>/dev/null
	release_dax_devices
	raw_disk "$asynchronous" >/dev/null
	rm -f $answers
}

# Only virtio-pmem.
load_providers() {
	modprobe virtio_pmem
}

# test_file_system NAME DISK: 7 subtests, on its file system.
test_file_system() {
	check "$1: mounted with DAX" mount_dax "$2"
	fallocate -l 4M $MNT/file
	is "$1: MAP_SYNC" "$(pmem-io map --sync $MNT/file store 2>&1)" "$refusal"
	check "$1: a mapping and fsync" pmem-io map-write --durable fsync $MNT/file
	check "$1: a mapping and msync" pmem-io map-write --seed 2 --durable msync $MNT/file
	record "$1: the kernel with its pages" \
		"$(pmem-io map --seed 2 --length 2M $MNT/file verify vmsplice process-read process-write sendfile zerocopy lock)"
	is "$1: kept by an io_uring" "$(pmem-io map $MNT/file pin 2>&1)" "pmem-io: pin: Operation not supported (os error 95)"
	umount $MNT
	mount_dax "$2"
	check "$1: mounted again, it is there" pmem-io map-verify --seed 2 $MNT/file
	umount $MNT
}

# map_sync_result: whether MAP_SYNC on a file is granted.
map_sync_result() {
	mount_dax "$disk"
	fallocate -l 64K $MNT/file
	if map_sync_answer=$(pmem-io map-write --sync --length 4096 $MNT/file 2>&1); then
		echo granted
	else
		echo "$map_sync_answer" | sed -n 's/.*: \(.*\) (os error.*/refused, \1/p'
	fi
	umount $MNT
}

# move_binding NAMESPACE bind|unbind: waits until freed memory is free.
move_binding() {
	echo "$1" >"/sys/bus/nd/drivers/$DRIVER/$2"
	sleep 0.2
}

plan 34
# On one CPU, so that freed memory is reused at once.
taskset -p 1 $$ >/dev/null
remove_providers
hold_freed_dax_devices
load_driver
asynchronous=$(virtio_ns)
disk=$(raw_disk "$asynchronous")
check "it has a disk" test -b "/dev/$disk"
is "which does not know how it is flushed" "$(cat "/sys/block/$disk/queue/fua")" 0
is "the region is not synchronous: no FUA" "$(cat "/sys/block/$disk/queue/fua")" 0
is "the disk itself: MAP_SYNC" "$(pmem-io map --sync --length 4K "/dev/$disk" load 2>&1)" "$refusal"

make_fs ext4 "$disk"
check "mounted with DAX" mount_dax "$disk"
fallocate -l 1M $MNT/file
check "stored to and flushed by fsync" pmem-io map-write --durable fsync $MNT/file
check "read(2) sees it" pmem-io verify $MNT/file
is "MAP_SYNC is refused" "$(pmem-io map-write --sync --durable flush $MNT/file 2>&1 | grep -c 'not supported')" 1
umount $MNT
check "mounted again" mount_dax "$disk"
check "it is there" pmem-io map-verify $MNT/file
umount $MNT
test_file_system ext4 "$disk"
# XFS does not support a disk this small.
make_fs xfs "$disk" --unsupported
test_file_system XFS "$disk"
echo "0 65536 linear /dev/$disk 8192" | dmsetup create part
dmsetup mknodes
make_fs ext4 mapper/part
test_file_system linear mapper/part
dmsetup remove part
disk=$(make_fsdax "$asynchronous" dev)
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 4K $MNT/file
is "map on the device: MAP_SYNC" "$(pmem-io map --sync $MNT/file store 2>&1)" "$refusal"
umount $MNT

disk=$(raw_disk "$asynchronous")

# ---- with other memory ----

load_module nd_e820
settle
synchronous=$(e820_ns)
raw_disk "$synchronous" >/dev/null
make_fs ext4 "$disk" -O ^has_journal
is "at first" "$(map_sync_result)" "refused, Operation not supported"
for _ in 1 2 3 4 5 6; do
	move_binding "$asynchronous" unbind
	move_binding "$synchronous" unbind
	move_binding "$asynchronous" bind
	move_binding "$synchronous" bind
	map_sync_result
done >$answers
found=$(sort -u $answers | xargs)
# A record would accept any value of rust_pmem that nd_pmem has as well.
if [ "$DRIVER" = rust_pmem ]; then
	is "after the other has gone" "$found" "refused, Operation not supported"
else
	record "after the other has gone" "$found"
fi
