#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A reboot or shutdown while files are dirty, mapped and being written keeps synced data and memory contents.
#
# The file systems are consistent afterwards.
# compare
# vm: labels 2
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/busy.sh"

cleanup() {
	umount $MNT /tmp/cached 2>/dev/null
}

# find_disks: identifies the disks by their modes after a reboot.
find_disks() {
	fsdax=$(ndctl list -N -m fsdax -r "$(labelled_region)" | jq -r '.[0].blockdev')
	sector=$(ndctl list -N -m sector -r "$(labelled_region)" | jq -r '.[0].blockdev')
	raw=$(plain_disk)
}

# start_load: dirties all files, and continues to write.
start_load() {
	mkdir -p /tmp/cached
	mount "/dev/$sector" /tmp/cached
	mount_dax "$fsdax"
	truncate -s 2M "$MNT/$1" "/tmp/cached/$1"
	pmem-io map-write --sync --durable flush "$MNT/$1" --seed "$2"
	pmem-io fill --no-sync "/tmp/cached/$1" --seed "$2"
	pmem-io fill --direct --no-sync --offset 4M --length 2M "/dev/$raw" --seed "$2"
	fio --name=busy --directory=$MNT --rw=randwrite --bs=4k --size=4M --ioengine=sync --time_based --runtime=900 >/dev/null 2>&1 &
	busy=$! fio_pid=$! fio_path=$MNT
	wait_for 60 fio_is_at_work
	fio --name=busy --filename="/dev/$raw" --allow_file_create=0 --direct=1 --offset=8M --size=4M --rw=randwrite --bs=4k --ioengine=libaio --iodepth=4 \
		--time_based --runtime=900 >/dev/null 2>&1 &
	busy="$busy $!" fio_pid=$! fio_path=/dev/$raw
	wait_for 60 fio_is_at_work
	sleep 0.5
}

all_busy() {
	for process in $busy; do
		kill -0 "$process" || return
	done
}

# check_files NAME FILE SEED
check_files() {
	check "$1: DAX file" pmem-io map-verify "$MNT/$2" --seed "$3"
	check "$1: cached file" pmem-io verify "/tmp/cached/$2" --seed "$3"
	check "$1: raw" pmem-io verify --direct --offset 4M --length 2M "/dev/$raw" --seed "$3"
}

# mount_again: recovers and checks the file systems, and mounts them.
mount_again() {
	load_driver
	find_disks
	for mount_disk in "$fsdax" "$sector"; do
		e2fsck -p "/dev/$mount_disk" >/dev/null || [ $? -le 1 ]
		check "e2fsck: $(test "$mount_disk" = "$fsdax" && echo fsdax || echo sector)" e2fsck -fn "/dev/$mount_disk"
	done
	mkdir -p /tmp/cached
	mount "/dev/$sector" /tmp/cached
	mount_dax "$fsdax"
}

need fio e2fsck
case $STAGE in
1)
	plan 1
	load_driver
	fresh_labels
	ndctl create-namespace -r "$(labelled_region)" -m fsdax -s 96M >/dev/null
	ndctl create-namespace -r "$(labelled_region)" -m sector -s 64M >/dev/null
	settle
	find_disks
	make_fs ext4 "$fsdax"
	mkfs.ext4 -q -F -b 4096 "/dev/$sector"
	start_load first 1
	check "all is going on" all_busy
	host reboot
	;;
2)
	plan 6
	mount_again
	check_files "after a restart with sync" first 1
	umount $MNT /tmp/cached
	start_load second 2
	sync
	check "all is going on" all_busy
	host shutdown
	;;
3)
	plan 8
	mount_again
	check_files "after a shutdown" second 2
	check "the first, still: DAX file" pmem-io map-verify "$MNT/first" --seed 1
	check "the first, still: cached file" pmem-io verify "/tmp/cached/first" --seed 1
	umount $MNT /tmp/cached
	check "and the module goes" rmmod "$DRIVER"
	;;
esac
