# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests of block drivers above a disk. There is no udev, so the tests make device nodes themselves.
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/stack.sh"

# make_two_disks ARGUMENTS OF ndctl create-namespace…: empties the labels and makes two such namespaces in the labelled
# region. FIRST and SECOND are the names of their disks, which hold no old signature.
# shellcheck disable=SC2034 # for the tests
make_two_disks() {
	fresh_labels
	FIRST=$(make_namespace -r "$(labelled_region)" "$@" | jq -r .blockdev)
	SECOND=$(make_namespace -r "$(labelled_region)" "$@" | jq -r .blockdev)
	clean_disk "$FIRST"
	clean_disk "$SECOND"
}

# clean_disk DISK: zeroes the places where a file system, RAID or partition table has its signature.
clean_disk() {
	fallocate -z -o 0 -l 1M "/dev/$1"
	fallocate -z -o $(($(blockdev --getsize64 "/dev/$1") - 1048576)) -l 1M "/dev/$1"
	blockdev --rereadpt "/dev/$1"
}

# fio_verify FILE [OPTION OF fio…]: writes 4 MiB in random order in blocks of 4 to 256 KiB, reads them back and
# compares checksums.
fio_verify() {
	fio_file=$1
	shift
	case $fio_file in
	/dev/*) [ -b "$fio_file" ] || return ;; # fio would make a file of it
	esac
	fio --name=verified --filename="$fio_file" --randseed=1 --direct=1 --rw=randwrite --size=4M \
		--bssplit=4k/50:12k/20:64k/20:256k/10 --blockalign=4k --ioengine=io_uring --iodepth=8 \
		--verify=crc32c --verify_fatal=1 --verify_dump=0 --end_fsync=1 --output-format=terse "$@"
}

# load_brd MIB: a RAM disk, /dev/ram0.
load_brd() {
	modprobe brd rd_nr=1 rd_size=$(($1 << 10))
}

# ---- device mapper ----

# dm_create NAME TABLE: makes /dev/mapper/NAME; lines of the table are separated by \n as in a printf format.
dm_create() {
	# shellcheck disable=SC2059 # the table is a format
	printf "$2\n" | dmsetup create "$1" --noudevsync --noudevrules
	dmsetup mknodes "$1"
}

dm_remove() {
	dmsetup remove --retry --noudevsync --noudevrules "$1"
}

# queue_attributes DISK ATTRIBUTE…: lines ATTRIBUTE:VALUE of its queue. DISK is a name in /dev.
queue_attributes() (
	cd "/sys/dev/block/$(stat -c %Hr:%Lr "/dev/$1")/queue" || exit
	shift
	grep -H . "$@"
)

# sector_count DISK
sector_count() {
	cat "/sys/class/block/$1/size"
}

# run_lvm COMMAND…: runs lvm without udev.
run_lvm() {
	lvm_command=$1
	shift
	lvm "$lvm_command" --config 'activation{udev_sync=0 udev_rules=0} devices{use_devicesfile=0}' "$@"
}

# ---- operations of users of a disk ----

# check_disk NAME DISK: 5 subtests: fio, a file system, fio in it, fsck. DISK is a name in /dev.
check_disk() {
	check "$1: fio reads back what it wrote" fio_verify "/dev/$2"
	check "$1: mkfs" mkfs.ext4 -q -F -b 4096 "/dev/$2"
	mkdir -p "$MNT"
	check "$1: mounted" mount "/dev/$2" "$MNT"
	check "$1: fio in a file" fio_verify "$MNT/file"
	umount "$MNT"
	check "$1: fsck" e2fsck -fn "/dev/$2"
}

# reload_driver: unloads the driver once the last user of a disk has released it, and loads it again.
reload_driver() {
	wait_for 30 unload_driver 2>/dev/null || {
		echo "# the driver can't be unloaded"
		return 1
	}
	load_driver
}

# record_unload_refused NAME: 1 subtest: the error of unloading the driver while its disk is in use.
record_unload_refused() {
	record "$1" "$(unload_driver 2>&1 | sed "s/$DRIVER/the driver/")"
}

# check_unloads: 1 subtest, the last one of most tests: the driver can be unloaded, because nothing holds a disk.
check_unloads() {
	check "and the driver can be unloaded" unload_driver
}
