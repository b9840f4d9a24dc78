# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the tests of other block drivers above a disk share. No udev is there: whoever makes a device makes its node.
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/stack.sh"

# two_disks ARGUMENTS OF ndctl create-namespace…: two namespaces made so in the labelled region, its labels being emptied before;
# FIRST and SECOND are the names of their disks. No trace of what was on them before is left.
# shellcheck disable=SC2034 # for the tests
two_disks() {
	fresh_labels
	FIRST=$(make_namespace -r "$(labelled_region)" "$@" | jq -r .blockdev)
	SECOND=$(make_namespace -r "$(labelled_region)" "$@" | jq -r .blockdev)
	clean_disk "$FIRST"
	clean_disk "$SECOND"
}

# clean_disk DISK: nothing that anybody would recognise.
clean_disk() {
	fallocate -z -o 0 -l 1M "/dev/$1"
	fallocate -z -o $(($(blockdev --getsize64 "/dev/$1") - 1048576)) -l 1M "/dev/$1"
	blockdev --rereadpt "/dev/$1"
}

# fio_verifies FILE [OPTION OF fio…]: 16 MiB at random, in pieces of 4 to 256 KiB, read back and compared by their checksums.
fio_verifies() {
	fio_file=$1
	shift
	case $fio_file in
	/dev/*) [ -b "$fio_file" ] || return ;; # fio would make a file of it
	esac
	fio --name=verified --filename="$fio_file" --randseed=1 --direct=1 --rw=randwrite --size=16M \
		--bssplit=4k/50:12k/20:64k/20:256k/10 --blockalign=4k --ioengine=io_uring --iodepth=8 \
		--verify=crc32c --verify_fatal=1 --verify_dump=0 --end_fsync=1 --output-format=terse "$@"
}

# brd_disk MIB: a disk of ordinary memory, /dev/ram0.
brd_disk() {
	modprobe brd rd_nr=1 rd_size=$(($1 << 10))
}

# ---- device mapper ----

# dm_create NAME TABLE: /dev/mapper/NAME; the lines of the table are given as printf's \n.
dm_create() {
	# shellcheck disable=SC2059 # the table is a format
	printf "$2\n" | dmsetup create "$1" --noudevsync --noudevrules
	dmsetup mknodes "$1"
}

dm_remove() {
	dmsetup remove --retry --noudevsync --noudevrules "$1"
}

# queue DISK ATTRIBUTE…: the lines ATTRIBUTE:VALUE of its queue. DISK is a name in /dev.
queue() (
	cd "/sys/dev/block/$(stat -c %Hr:%Lr "/dev/$1")/queue" || exit
	shift
	grep -H . "$@"
)

# sectors DISK
sectors() {
	cat "/sys/class/block/$1/size"
}

# lvm_do COMMAND…: without udev.
lvm_do() {
	lvm_command=$1
	shift
	lvm "$lvm_command" --config 'activation{udev_sync=0 udev_rules=0} devices{use_devicesfile=0}' "$@"
}

# ---- what a user does with a disk ----

# serves NAME DISK: 5 subtests: fio, a file system, fio in it, fsck. DISK is a name in /dev.
serves() {
	check "$1: fio reads back what it wrote" fio_verifies "/dev/$2"
	check "$1: mkfs" mkfs.ext4 -q -F -b 4096 "/dev/$2"
	mkdir -p "$MNT"
	check "$1: mounted" mount "/dev/$2" "$MNT"
	check "$1: fio in a file" fio_verifies "$MNT/file" --size=8M
	umount "$MNT"
	check "$1: fsck" e2fsck -fn "/dev/$2"
}

# driver_away: the driver is unloaded, as soon as whoever is letting go of a disk has done so, and loaded again.
driver_away() {
	for _ in $(seq 50); do
		! unload_driver 2>/dev/null || break
		sleep 0.2
	done
	! driver_loaded
	load_driver
}

# in_use NAME: what unloading the driver answers while something holds a disk of it.
in_use() {
	seen "$1" "$(unload_driver 2>&1 | sed "s/$DRIVER/the driver/")"
}

# unloads: the last subtest of most: nothing holds a disk any more, and the driver can go.
unloads() {
	check "and the driver can be unloaded" unload_driver
}
