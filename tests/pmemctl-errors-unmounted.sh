#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl errors finds the same owners on an unmounted file system as on a mounted one, and writes nothing.
#
# It reports why a device cannot be examined.
# vm: labels
# timeout: 420
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	clean_up_volumes "$disk"
}

# mark_bad SECTOR…: makes the sectors bad.
mark_bad() {
	for sector; do
		echo "$sector 1" >"/sys/block/$disk/badblocks"
	done
}

# list_owners: the owner of each bad sector, without the mount point.
list_owners() {
	pmemctl errors --links --json "/dev/$disk" | jq -cS '.errors[] | [.offset, .owner.kind, .owner.what, .owner.group, .owner.inode, .owner.file_offset, ((.owner.paths // []) | map(ltrimstr("'"$MNT"'")) | sort)]' | sort
}

# first_entry FIELD: a field of the first entry.
first_entry() {
	pmemctl errors --json "/dev/$disk" | jq -r ".errors[0] | $1"
}

# count_written: the number of sectors that were written to the disk.
count_written() {
	awk '{ print $7 }' "/sys/block/$disk/stat"
}

# populate: makes files of many kinds.
populate() {
	mkdir -p "$MNT/a folder/many"
	dd if=/dev/urandom of="$MNT/a folder/one" bs=64K count=16 conv=fsync status=none
	ln "$MNT/a folder/one" "$MNT/linked"
	# A name that looks like a line of the tools' output, which would name another file.
	lie=$(printf '%s/lie\n%s\t' "$MNT" "$(stat -c %i "$MNT/linked")")
	mkdir "$lie"
	dd if=/dev/urandom of="$lie/false" bs=4K count=1 conv=fsync status=none
	for name in $(seq 100); do : >"$MNT/a folder/many/a name that takes some room $name"; done
	odd=$(printf '%s/new\nline \377' "$MNT")
	dd if=/dev/urandom of="$odd" bs=4K count=9 conv=fsync status=none
	# More extents than fit into an inode.
	seq 0 32 1280 | sed 's/.*/pwrite -q &k 4k/' | xfs_io -f "$MNT/pieces" >/dev/null
	ln -s "$(printf '%0900d' 0)" "$MNT/link"
	setfattr -n user.x -v "$(printf '%0900d' 0)" "$MNT/pieces"
	sync -f "$MNT"
}

# link_sector: the first sector of the symbolic link's block, from the tools of its file system, which is not mounted.
link_sector() {
	case $system in
	ext4)
		block=$(debugfs -R 'blocks /link' "/dev/$disk" 2>/dev/null | awk '{ print $1 }')
		echo $((block * $(debugfs -R 'stats' "/dev/$disk" 2>/dev/null | awk '/^Block size:/ { print $3 }') / 512))
		;;
	xfs)
		block=$(xfs_db -r -c "inode $link" -c bmap "/dev/$disk" | awk '/startblock/ { print $5 }')
		xfs_db -r -c "convert fsblock $block daddr" "/dev/$disk" | tr -d '()' | awk '{ print $2 }'
		;;
	esac
}

need filefrag debugfs dumpe2fs xfs_io xfs_db xfs_logprint setfattr mkswap
plan 46
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 448M)
mkdir -p "$MNT"

# ---- the same as mounted, and as the file system's tools report ----

for kind in 'ext4 -O ^metadata_csum' 'ext4 -O ^extent,^64bit -b 1024' 'xfs -m rmapbt=1' 'xfs -m rmapbt=0,reflink=1'; do
	system=${kind%% *}
	echo 1 >"/sys/block/$disk/queue/iostats"
	wipefs -aq "/dev/$disk"
	# shellcheck disable=SC2086 # several words
	make_fs "$system" "$disk" ${kind#* }
	mount "/dev/$disk" "$MNT"
	populate
	one=$(sector_of "$MNT/a folder/one")
	bad_sectors="$((one + 9)) $(sector_of "$MNT/pieces" $((7 * 8 * 4096))) $(sector_of "$odd") $(sector_of "$lie/false") $((700 * 1024))"
	# The copy shares blocks: each of their owners must be found.
	if [ "$system" = xfs ]; then
		cp --reflink=always "$MNT/a folder/one" "$MNT/copy"
		copy=1
		sync -f "$MNT"
	else
		copy=0
	fi
	# Spread over the disk.
	for part in $(seq 1 40); do
		bad_sector=$((part * 20011 + 60000))
		# Skip the places where ext4 groups may have their inode tables, which the tools must be able to read.
		[ $((bad_sector % 262144)) -lt 49152 ] || bad_sectors="$bad_sectors $bad_sector"
	done
	inode=$(stat -c %i "$MNT/a folder/one")
	link=$(stat -c %i "$MNT/link")
	umount "$MNT"
	linked=$(link_sector)
	# A mounted XFS without reverse mapping does not report it; and the tools read a page with several blocks as a
	# whole or not at all.
	case $kind in
	*rmapbt=0* | *'-b 1024'*) ;;
	*) bad_sectors="$bad_sectors $linked" ;;
	esac
	before=$(count_written)
	[ "$before" -gt 0 ] || before="some, if they were counted"
	# shellcheck disable=SC2086
	mark_bad $bad_sectors
	list_owners >/tmp/offline
	is "$kind: a file, its offset and all of its names" \
		"$(grep -F "[$(((one + 9) * 512)),\"file\",null,null,$inode," /tmp/offline | cut -d, -f5-)" "$inode,$((9 * 512)),[\"/a folder/one\",\"/linked\"]]"
	is "$kind: those that share it, each" "$(grep -cF "[$(((one + 9) * 512)),\"file\"" /tmp/offline)" $((1 + copy))
	is "$kind: a name with a newline and a byte that is no text" "$(grep -cF '/new\\nline \\xff' /tmp/offline)" 1
	mark_bad "$linked"
	is "$kind: a symbolic link's block" "$(pmemctl errors --json "/dev/$disk" |
		jq -c ".errors[] | select(.offset == $linked * 512).owner | [.inode, .file_offset, .paths]")" "[$link,0,[\"/link\"]]"
	is "$kind: free space" "$(grep -c '"free"' /tmp/offline | sed 's/^[1-9].*/some/')" some
	is "$kind: nothing was written" "$(count_written)" "$before"
	forget_errors_now "$disk"
	mount "/dev/$disk" "$MNT"
	# shellcheck disable=SC2086
	mark_bad $bad_sectors
	list_owners >/tmp/online
	check "$kind: the same as when it is mounted" diff /tmp/online /tmp/offline
	umount "$MNT"
	forget_errors_now "$disk"
done

# ---- metadata that the tools cannot read ----

make_fs ext4 "$disk"
mount "/dev/$disk" "$MNT"
for file in $(seq 60); do echo "$file" >"$MNT/$file"; done
sync -f "$MNT"
# The files have inodes from 13 on: inode 36 is in the third block of the first inode table, with 16 inodes to a block.
first=$(sector_of "$MNT/1") lost=$(sector_of "$MNT/30") last=$(sector_of "$MNT/60")
umount "$MNT"
dumpe2fs "/dev/$disk" 2>/dev/null >/tmp/groups
table=$(sed -n 's/.*Inode table at \([0-9]*\)-.*/\1/p' /tmp/groups | sed -n 3p)
mark_bad $((table * 8))
is "ext4: an inode table" "$(first_entry '"\(.owner.what) \(.owner.group)"')" 'inode table 2'
check "in words" sh -c "pmemctl errors /dev/$disk | grep -q 'inode table of group 2 of $disk\$'"
forget_errors_now "$disk"
table=$(sed -n 's/.*Inode table at \([0-9]*\)-.*/\1/p' /tmp/groups | sed -n 1p)
mark_bad $((table * 8 + 16)) "$first" "$lost" "$last"
pmemctl errors --json "/dev/$disk" >/tmp/output || :
is "an inode table that is in use, and files in front of it and behind it" \
	"$(jq -c '[.errors[] | .owner | [.what, .paths]]' /tmp/output)" '[["inode table",null],[null,["/1"]],[null,null],[null,["/60"]]]'
is "a file with its inode in it may own the rest" "$(jq -r '.errors[2] | "\(.owner.kind) \(.reason)"' /tmp/output | cut -c1-61)" \
	"unknown or a file whose inode is on a bad block as well (iche"
forget_errors_now "$disk"
mark_bad $(($(sed -n 's/.*Block bitmap at \([0-9]*\).*/\1/p' /tmp/groups | sed -n 2p) * 8 + 5))
is "a block bitmap" "$(first_entry '"\(.owner.what) \(.owner.group)"')" 'block bitmap 1'
forget_errors_now "$disk"
mark_bad $(($(debugfs -R 'blocks <8>' "/dev/$disk" 2>/dev/null | awk '{ print $2 }') * 8))
is "the journal" "$(first_entry .owner.what)" journal
forget_errors_now "$disk"
mark_bad $(($(cat "/sys/block/$disk/size") - 8))
is "the end, where others have their superblocks" "$(first_entry .owner.kind)" free
forget_errors_now "$disk"
mark_bad 2
is "the superblock" "$(first_entry .reason)" 'no file system found; its superblock may be on a bad block'
forget_errors_now "$disk"

# ---- devices that are not examined ----

mark_bad 600000
status=0
dmsetup create other --table "0 4096 linear /dev/$disk 0"
other=$(dmsetup info -c --noheadings -o blkdevname other)
pmemctl errors --json "/dev/$disk" >/tmp/output || status=$?
dmsetup remove --retry other
is "in use: status 1" $status 1
is "and why" "$(jq -r '.errors[0].reason' /tmp/output)" "device is busy: $disk is part of $other (device mapper: other)"
mount "/dev/$disk" "$MNT"
: >"$MNT/file"
fsfreeze -f "$MNT"
is "frozen: the owner is reported" "$(first_entry .owner.kind)" free
dd if="/dev/$disk" of=/tmp/dirty bs=1M count=64 status=none
fsfreeze -u "$MNT"
umount "$MNT"
mkswap "/dev/$disk" >/dev/null
is "swap" "$(first_entry .reason)" 'it is swap space'
printf 'LUKS\272\276\0\001' | dd of="/dev/$disk" conv=notrunc status=none
wipefs -aq -t swap "/dev/$disk"
is "LUKS" "$(first_entry .reason | cut -c1-19)" 'it is encrypted (LU'
wipefs -aq "/dev/$disk"

make_fs ext4 "$disk" -O mmp,^metadata_csum
mmp=$(debugfs -c -R dump_mmp "/dev/$disk" 2>/dev/null | awk '/^block_number:/ { print $2 }')
printf '\021\0\0\0' | dd of="/dev/$disk" bs=1 seek=$((mmp * 4096 + 4)) conv=notrunc status=none
is "another machine may have it mounted" "$(first_entry .reason | cut -c1-29)" 'its multi-mount protection sa'
make_fs ext4 "$disk"
debugfs -w -R 'feature needs_recovery' "/dev/$disk" >/dev/null 2>&1
is "a journal that has something" "$(first_entry .reason | cut -c1-29)" 'it was not unmounted cleanly,'
make_fs xfs "$disk"
mount "/dev/$disk" "$MNT"
: >"$MNT/file"
xfs_io -x -c 'shutdown -f' "$MNT"
umount "$MNT"
is "a log that has something" "$(first_entry .reason | cut -c1-29)" 'it was not unmounted cleanly,'
mount "/dev/$disk" "$MNT"
is "mounted once, the owner is reported" "$(first_entry .owner.kind)" free
umount "$MNT"
is "and when it is not mounted" "$(first_entry .owner.kind)" free
