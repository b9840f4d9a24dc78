#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Below device mapper, md, loop, bcache and the NVMe target, nowait requests over bad pages succeed and polled ones are refused.
# vm: provider 2
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/stack.sh"
. "$(dirname "$0")/lib/nvme-target.sh"

need dmsetup mdadm make-bcache nvme fio
export DM_DISABLE_UDEV=1
md=md127
cleanup() {
	umount $MNT
	stop_export
	umount /sys/kernel/config
	dmsetup remove_all --force --noudevsync --noudevrules
	mdadm -q --stop /dev/$md
	losetup -D
	for cache in /sys/block/bcache*/bcache/stop /sys/fs/bcache/*-*/stop; do
		[ ! -e "$cache" ] || echo 1 >"$cache"
	done
	wait_for 30 sh -c '! ls -d /sys/fs/bcache/*-*'
	rmmod brd
	provider_cleanup
} 2>/dev/null

# fio_as_nobody FILE [OPTION OF fio…]: requests of 4 to 64 KiB, which io_uring submits first so that they must not wait.
fio_as_nobody() {
	nobody_file=$1
	shift
	setpriv --reuid=65534 --clear-groups fio --name=nobody --filename="$nobody_file" --ioengine=io_uring --direct=1 --rw=randwrite --overwrite=1 \
		--bsrange=4k-64k --blockalign=4k --iodepth=16 --size=4M --fallocate=none --output-format=terse "$@"
}

# is_refused COMMAND…: it fails because the operation is not supported.
is_refused() {
	! "$@" >/tmp/refused 2>&1 && grep -q 'Operation not supported' /tmp/refused
}

# stack_rows NAME DISK: 4 subtests. BAD is a range of the first namespace below the whole of this disk.
stack_rows() {
	provider bad "$BAD"
	check "$1: requests that must not wait, over bad pages" fio_verify "/dev/$2"
	is_empty "$1: the bad pages are repaired" badblocks_of "$FIRST"
	is "$1: it can't be polled" "$(queue_attributes "$2" io_poll)" io_poll:0
	check "$1: polled requests are refused" is_refused fio_verify "/dev/$2" --size=1M --hipri
}

# suspend_and_resume NAME VOLUME: 1 subtest.
suspend_and_resume() {
	dmsetup suspend --noudevsync "$2"
	dmsetup resume --noudevsync --noudevrules "$2"
	check "$1: after suspend and resume" fio_verify "/dev/mapper/$2" --size=2M
}

plan 49
provide nr_regions=2 size=$((128 << 20)) pages=1
FIRST=$DISK
SECOND=$(disk_of "$(namespaces pmem_provider | sed -n 2p)")
BAD=1M+1M
mkdir -p "$MNT"

dm_create volume "0 65536 linear /dev/$FIRST 0"
stack_rows dm-linear mapper/volume
suspend_and_resume dm-linear volume
dm_remove volume

dm_create volume "0 65536 striped 2 256 /dev/$FIRST 0 /dev/$SECOND 0"
BAD=1M+1M
stack_rows dm-stripe mapper/volume
is "dm-stripe: no stripe is marked as failed" "$(dmsetup status volume | grep -o '[AD]*$')" AA
suspend_and_resume dm-stripe volume
dm_remove volume

modprobe dm-mirror
dm_create volume "0 65536 mirror core 2 1024 nosync 2 /dev/$FIRST 0 /dev/$SECOND 0 1 handle_errors"
BAD=1M+1M
stack_rows dm-mirror mapper/volume
is "dm-mirror: no leg is marked as failed" "$(dmsetup status volume | grep -o ' [AD]* ' | tr -d ' ')" AA
suspend_and_resume dm-mirror volume
dm_remove volume

dm_create volume "0 65536 crypt capi:xts(aes)-plain64 $(seq 1000 | head -c 32 | od -An -v -tx1 | tr -d ' \n') 0 /dev/$FIRST 0"
stack_rows dm-crypt mapper/volume
suspend_and_resume dm-crypt volume
dm_remove volume

clean_disk "$SECOND"
dm_create pool "0 100000 thin-pool /dev/$SECOND /dev/$FIRST 128 0"
dmsetup message pool 0 "create_thin 0"
dm_create volume "0 65536 thin /dev/mapper/pool 0"
pmem-io fill --direct --length 32M /dev/mapper/volume
stack_rows dm-thin mapper/volume
suspend_and_resume dm-thin volume
check "dm-thin: mkfs" mkfs.ext4 -q -F -b 4096 /dev/mapper/volume
mount /dev/mapper/volume "$MNT"
dd if=/dev/zero of="$MNT/file" bs=1M count=4 conv=fsync status=none
chown 65534 "$MNT/file"
dmsetup suspend --noudevsync volume
dmsetup message pool 0 "create_snap 1 0"
dmsetup resume --noudevsync --noudevrules volume
# The pool copies a shared block before it is written: a worker of device mapper submits such a request.
check "dm-thin: with a snapshot, a user's polled requests are refused" is_refused fio_as_nobody "$MNT/file" --hipri
check "dm-thin: with a snapshot, a user's requests" fio_as_nobody "$MNT/file"
umount "$MNT"
check "dm-thin: fsck" e2fsck -fn /dev/mapper/volume
dm_remove volume
dm_remove pool

clean_disk "$FIRST"
clean_disk "$SECOND"
mdadm -q --create /dev/$md --run --metadata=1.2 --homehost=none --bitmap=none --level=1 --data-offset=2M --raid-devices=2 \
	--assume-clean "/dev/$FIRST" "/dev/$SECOND"
BAD=3M+1M
stack_rows "RAID 1" $md
is "RAID 1: both halves are in it" "$(cat /sys/block/$md/md/degraded)" 0
mdadm -q --fail /dev/$md "/dev/$SECOND"
check "RAID 1: with a failed half" fio_verify /dev/$md
mdadm -q --stop /dev/$md

clean_disk "$FIRST"
clean_disk "$SECOND"
modprobe loop
losetup --direct-io=on /dev/loop0 "/dev/$FIRST"
BAD=1M+1M
stack_rows "loop device" loop0
losetup -d /dev/loop0

modprobe bcache
load_brd 64
make-bcache --wipe-bcache --writeback --bucket 64k --block 4k -C /dev/ram0 -B "/dev/$FIRST" >/dev/null
echo /dev/ram0 >/sys/fs/bcache/register
echo "/dev/$FIRST" >/sys/fs/bcache/register
wait_for 30 test -b /dev/bcache0
echo none >/sys/block/bcache0/bcache/cache_mode
BAD=1M+1M
stack_rows bcache bcache0
echo 1 >/sys/block/bcache0/bcache/stop
wait_for 30 test ! -e /sys/block/bcache0
for cache in /sys/fs/bcache/*-*/stop; do
	echo 1 >"$cache"
done
clean_disk "$FIRST"

mount -t configfs none /sys/kernel/config
modprobe -a nvmet nvme_loop
export_disk "$FIRST"
add_port 1 trtype loop
connect_remote -t loop
BAD=1M+1M
stack_rows "NVMe target" "$(remote_disk)"
stop_export
