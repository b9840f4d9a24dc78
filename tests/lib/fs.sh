# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers to make file systems with DAX, and to find where the bytes of a file are.

# disk_offset_of FILE OFFSET: the offset of that byte of a file on the device of its file system (FIEMAP).
disk_offset_of() {
	# By descriptor: the name of the file may look like a line of filefrag's output.
	filefrag -e -b1 -v /proc/self/fd/0 <"$1" |
		awk -v at="$2" '{ gsub(/[:.]/, " ") } $1 ~ /^[0-9]+$/ && at >= $2 && at <= $3 { printf "%.0f\n", $4 + at - $2; exit }'
}

# sector_of FILE [OFFSET]: the sector that holds that byte.
sector_of() {
	echo $(($(disk_offset_of "$1" "${2:-0}") / 512))
}

# make_fs ext4|xfs DISK [OPTION OF mkfs…]: makes a file system for DAX: blocks of a page, files aligned to 2 MiB.
make_fs() {
	fs_type=$1
	fs_disk=/dev/$2
	fs_page=$(getconf PAGESIZE)
	fs_stride=$((2097152 / fs_page))
	shift 2
	case $fs_type in
	ext4) mkfs.ext4 -q -F -b "$fs_page" -E stride=$fs_stride,stripe_width=$fs_stride,nodiscard "$@" "$fs_disk" ;;
	xfs) modprobe xfs && mkfs.xfs -q -f -K -b size="$fs_page" -d agcount=2,su=2m,sw=1 "$@" "$fs_disk" ;;
	esac
}

# make_xfs_of_one_group DISK: with a reverse map. With more allocation groups, XFS then hangs at an unbind (patches/0011). mkfs.xfs
# makes one of one, or of less than 300 MB, for tests alone, which it knows by xfstests' variables.
make_xfs_of_one_group() {
	modprobe xfs
	TEST_DIR=1 TEST_DEV=1 QA_CHECK_FS=1 mkfs.xfs -q -f -K -d agcount=1 -m rmapbt=1 "/dev/$1"
}

# fs_is_whole ext4|xfs DISK: this file system, which is not mounted, agrees with itself. Prints what does not.
fs_is_whole() {
	case $1 in
	ext4) e2fsck -f -n "/dev/$2" ;;
	# Also one of one allocation group.
	xfs) xfs_repair -n -o force_geometry "/dev/$2" ;;
	*) return 2 ;;
	esac
}

# mount_dax DISK [OPTIONS]: mounts it at MNT with dax=always. XFS mounts a disk without DAX as well, which fails here.
mount_dax() {
	mkdir -p "$MNT"
	# Callers may go on after a failure, with errexit off.
	mount -o "dax=always${2:+,$2}" "/dev/$1" "$MNT" || return
	if grep -q " $MNT .*[ ,]dax=never" /proc/mounts; then
		echo "$1 has no DAX"
		umount "$MNT"
		return 1
	fi
}

# write_over FILE OFFSET: writes other data than that of seed 1 to a page, and that again, and reads both.
write_over() {
	for seed in 2 1; do
		pmem-io fill "$1" --offset "$2" --length 4K --seed $seed &&
			pmem-io verify "$1" --offset "$2" --length 4K --seed $seed || return
	done
}

# try_dax DISK: does the same, or prints why ext4 refuses.
try_dax() {
	mount_dax "$1" 2>/dev/null || {
		dmesg | sed -n 's/.*EXT4-fs ([^)]*): //p' | tail -n 1
		return 1
	}
}

# reads_up_to BYTES FILE: a read of a DAX file whose first bad page is at BYTES returns no byte of that page: it returns
# data before it, or EIO. The driver and the kernel decide how much: both may fail a larger range with a bad page as a
# whole.
reads_up_to() {
	if read_output=$(pmem-io pread "$2" --length 4M 2>&1); then
		[ "$read_output" -le "$1" ]
	else
		case $read_output in
		*'Input/output error'*) ;;
		*) printf '%s\n' "$read_output" && return 1 ;;
		esac
	fi
}
