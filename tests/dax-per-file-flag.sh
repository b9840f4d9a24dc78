#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The mount option and the per-file flag decide which files use DAX; a changed flag takes effect once the file is
# closed.
#
# With dax=inode, files inherit the flag from their directory.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	exec 4<&-
	umount $MNT 2>/dev/null
}

# is_dax FILE: prints the DAX state that statx reports (STATX_ATTR_DAX).
is_dax() {
	attributes=$(xfs_io -r -c "statx -r" "$1" | sed -n 's/^stat.attributes = //p')
	if [ $((attributes & 0x200000)) -ne 0 ]; then
		echo dax
	else
		echo not
	fi
}

# are_dax FILE…: the states on one line.
are_dax() {
	for file in "$@"; do
		is_dax "$MNT/$file"
	done | tr '\n' ' ' | sed 's/ $//'
}

# unmount: a process that has ended may keep its mapping for a moment, on a slow kernel.
unmount() {
	wait_for 60 umount $MNT
}

remount() {
	unmount
	mount -o "$1" "/dev/$disk" $MNT
}

# test_flags TYPE
test_flags() {
	make_fs "$1" "$disk"
	mount "/dev/$disk" $MNT
	mkdir $MNT/plain $MNT/flagged
	xfs_io -c "chattr +x" $MNT/flagged
	fallocate -l 4M $MNT/plain/file
	fallocate -l 4M $MNT/flagged/file
	mkdir $MNT/flagged/below
	fallocate -l 4M $MNT/flagged/below/file
	files="plain/file flagged/file flagged/below/file"
	# shellcheck disable=SC2086 # the list
	is "$1: no option: those with the flag, inherited" "$(are_dax $files)" "not dax dax"
	record "$1: and the options are said to be" "$(awk '$2 == "'$MNT'" { print $4 }' /proc/mounts)"
	record "$1: lsattr" "$(lsattr -R $MNT | awk '/file|flagged|plain/ { print $2, $1 }' | sort)"
	check "$1: MAP_SYNC on one with the flag" pmem-io map-write --sync --durable flush $MNT/flagged/file
	is "$1: on one without" "$(pmem-io map --sync --length 4K $MNT/plain/file load 2>&1)" \
		"pmem-io: mmap: Operation not supported (os error 95)"
	for option in dax=inode dax=always dax=never dax; do
		remount $option
		case $option in
		dax=inode) wanted="not dax dax" ;;
		dax=never) wanted="not not not" ;;
		*) wanted="dax dax dax" ;;
		esac
		# shellcheck disable=SC2086 # the list
		is "$1: $option" "$(are_dax $files)" "$wanted"
		record "$1: $option is shown as" "$(awk '$2 == "'$MNT'" { print $4 }' /proc/mounts)"
		check "$1: $option: the bytes are there" pmem-io map-verify $MNT/flagged/file
	done
	record_result "$1: another option while mounted" mount -o remount,dax=never $MNT
	is "$1: and files stay what they are" "$(are_dax plain/file)" dax

	remount dax=inode
	exec 4<$MNT/plain/file
	check "$1: the flag is set on an open file" xfs_io -c "chattr +x" $MNT/plain/file
	is "$1: it is not DAX while it is open" "$(are_dax plain/file)" not
	exec 4<&-
	is "$1: it is when it is closed" "$(are_dax plain/file)" dax
	exec 4<$MNT/flagged/file
	check "$1: the flag is cleared on an open file" xfs_io -c "chattr -x" $MNT/flagged/file
	is "$1: it is DAX while it is open" "$(are_dax flagged/file)" dax
	exec 4<&-
	is "$1: it is not when it is closed" "$(are_dax flagged/file)" not
	check "$1: and has its bytes" pmem-io map-verify $MNT/flagged/file
	is "$1: moved out of a flagged directory" "$(mv $MNT/flagged/below/file $MNT/plain/moved && are_dax plain/moved)" dax
	unmount
}

plan 54
need xfs_io lsattr
load_driver
disk=$(labelled_disk -m fsdax -M mem)
mkdir -p $MNT
test_flags ext4
test_flags xfs
