# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# File systems with DAX on a disk, and where the bytes of their files are.

MNT=/tmp/mnt

# place_of FILE OFFSET: where that byte of a file is on the device of its file system, as that tells.
place_of() {
	# Not by its name, which may look like a line of the answer.
	filefrag -e -b1 -v /proc/self/fd/0 <"$1" | tr :. '  ' |
		awk -v at="$2" '$1 ~ /^[0-9]+$/ && at >= $2 && at <= $3 { printf "%.0f\n", $4 + at - $2; exit }'
}

# sector_of FILE [OFFSET]: the sector that it is in.
sector_of() {
	echo $(($(place_of "$1" "${2:-0}") / 512))
}

# make_fs ext4|xfs DISK [OPTION OF mkfs…]: a file system for DAX: pages as blocks, files aligned for mappings of 2 MiB.
make_fs() {
	fs_type=$1
	fs_disk=/dev/$2
	shift 2
	case $fs_type in
	ext4) mkfs.ext4 -q -F -b 4096 -E stride=512,stripe_width=512,nodiscard "$@" "$fs_disk" ;;
	xfs) modprobe xfs && mkfs.xfs -q -f -K -d agcount=2,su=2m,sw=1 "$@" "$fs_disk" ;;
	esac
}

# mount_dax DISK [OPTIONS]: mounts it at MNT, all of its files with DAX.
mount_dax() {
	mkdir -p "$MNT"
	mount -o "dax=always${2:+,$2}" "/dev/$1" "$MNT"
}

# try_dax DISK: the same, or ext4's own words why it can't be.
try_dax() {
	mount_dax "$1" 2>/dev/null || {
		dmesg | sed -n 's/.*EXT4-fs ([^)]*): //p' | tail -n 1
		return 1
	}
}

# gives_before BYTES FILE: whether a read of a DAX file whose page at BYTES is the first bad one gives nothing of that: some of what
# is before it, or EIO. How much is up to driver and kernel: both may give up a stretch with a bad page as a whole.
gives_before() {
	if given=$(pmem-io pread "$2" --length 4M 2>&1); then
		[ "$given" -le "$1" ]
	else
		case $given in
		*'Input/output error'*) ;;
		*) printf '%s\n' "$given" && return 1 ;;
		esac
	fi
}
