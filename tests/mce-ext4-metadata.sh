#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On ext4, a machine check in metadata fails what needs that block, and no other file; a repair and e2fsck bring all back.
#
# The kernel has copies of the blocks in its caches, which are dropped after the machine check.
# compare
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"

BLOCK=4096

cleanup() {
	umount $MNT 2>/dev/null
	rm -f /tmp/mce-ext4-metadata.*
}

# block_of REQUEST: the block that debugfs names for this request, such as "blocks /folder".
block_of() {
	case $1 in
	imap*) debugfs -R "$1" "/dev/$disk" 2>/dev/null | sed -n 's/.*located at block \([0-9]*\),.*/\1/p' ;;
	*) debugfs -R "$1" "/dev/$disk" 2>/dev/null | awk '{ print $1 }' ;;
	esac
}

is_listed() {
	awk -v sector=$(($1 * BLOCK / 512)) '{ found = found || $1 <= sector && sector < $1 + $2 } END { exit !found }' \
		"/sys/block/$disk/badblocks"
}

# inject_mce NAME BLOCK: 1 row: injects a machine check in the block, and drops the kernel's caches.
inject_mce() {
	sync -f $MNT
	dmesg -C
	host mce $((data + $2 * BLOCK))
	check "$1: the block is listed" wait_for 60 is_listed "$2"
	echo 3 >/proc/sys/vm/drop_caches
}

# check_good NAME: 1 row: the other files can be read, also through a mapping.
check_good() {
	check "$1: another file is there" sh -c "pmem-io verify --seed 5 $MNT/good/file && pmem-io map-verify --seed 5 $MNT/good/file"
}

# kernel_messages: what ext4 says, each once. Numbers of inodes and blocks differ: ext4 chooses the groups of folders at random.
kernel_messages() {
	dmesg | sed -n 's/^\[[^]]*\] //; s/ comm [^:]*:/ comm X:/; s/pmem[0-9]*/DISK/; s/\([# ]\)[0-9][0-9]*/\1N/g; /EXT4-fs/p' | sort -u
}

# same_block FILE…: prints those files whose inode is in $inode_block.
same_block() {
	for name in "$@"; do
		[ "$(block_of "imap /$name")" != "$inode_block" ] || echo "$name"
	done
}

# zero_blocks BLOCK…
zero_blocks() {
	for block in "$@"; do
		blkdiscard -f -z -o $((block * BLOCK)) -l $BLOCK "/dev/$disk"
	done
}

# repair_file_system: runs e2fsck; its status is 1 after it has corrected errors.
repair_file_system() {
	repair_status=0
	e2fsck -fy -b 4096 -B $BLOCK "/dev/$disk" || repair_status=$?
	[ $repair_status -eq 1 ]
}

[ "$DRIVER:$(uname -m)" != nd_pmem:aarch64 ] || skip_all "C lists no memory error that firmware reports"
need blkdiscard debugfs dumpe2fs e2fsck
plan 35
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 112M)
data=$(cat "/sys/block/$disk/device/resource")
# Four groups, each with its own bitmaps and inodes; two have a copy of the superblock.
make_fs ext4 "$disk" -O ^flex_bg -g 4096 -N 1024
mount_dax "$disk"
mkdir $MNT/good $MNT/folder $MNT/many
fallocate -l 4M $MNT/good/file
pmem-io fill --seed 5 $MNT/good/file
echo one >$MNT/folder/one
echo two >$MNT/folder/two
for number in $(seq 100); do echo "$number" >"$MNT/many/$number"; done
fallocate -l 64K $MNT/many/removed
inode=$(stat -c %i $MNT/many/60)
inode_of_one=$(stat -c %i $MNT/folder/one)
# So that nothing is left in the journal.
umount $MNT
folder_block=$(block_of "blocks /folder")
inode_block=$(block_of "imap <$inode>")
group=$(($(block_of "blocks /many/removed") / 4096))
bitmap_block=$(dumpe2fs "/dev/$disk" 2>/dev/null |
	awk -v group="$group:" '/^Group/ { here = $2 == group } here && /Block bitmap at/ { print $4 + 0 }')
echo "# folder $folder_block, inodes $inode_block, bitmap $bitmap_block of group $group"
is_empty "no other file has its inode in that block" same_block good folder many good/file folder/one many/1
mount_dax "$disk"

inject_mce "a folder" "$folder_block"
is "a folder: it can't be listed" "$(errno_of ls $MNT/folder)" "Input/output error"
is "a folder: nor can a file in it be opened" "$(errno_of cat $MNT/folder/one)" "Input/output error"
is "a folder: nor made" "$(errno_of sh -c "echo x >$MNT/folder/new")" "Input/output error"
record "a folder: the kernel says" "$(kernel_messages)"
check_good "a folder"
check "a folder: a file is made elsewhere" sh -c "echo x >$MNT/good/new && sync -f $MNT"

inject_mce "inodes" "$inode_block"
is "inodes: a file can't be opened" "$(errno_of cat $MNT/many/60)" "Input/output error"
is "inodes: nor removed" "$(errno_of rm $MNT/many/60)" "Input/output error"
record "inodes: the kernel says" "$(kernel_messages)"
is "inodes: a file with another block of inodes" "$(cat $MNT/many/1)" 1
check_good "inodes"

mount -o remount,errors=remount-ro $MNT
inject_mce "a bitmap" "$bitmap_block"
record "a bitmap: a file is removed" "$(errno_of rm $MNT/many/removed)"
sync -f $MNT || :
record "a bitmap: the kernel says" "$(kernel_messages)"
is "a bitmap: the file system is read-only" "$(errno_of touch $MNT/good/newer)" "Read-only file system"
check_good "a bitmap"
check "a bitmap: unmounted" umount $MNT

mount_dax "$disk"
inject_mce "a copy of the superblock" $((3 * 4096))
check_good "a copy of the superblock"
check "a copy of the superblock: unmounted" umount $MNT
mount_dax "$disk"
inject_mce "the superblock" 0
check_good "the superblock"
check "the superblock: unmounted" umount $MNT
echo 3 >/proc/sys/vm/drop_caches
check_fails "the superblock: it can't be mounted" mount "/dev/$disk" $MNT

if [ "$DRIVER" = rust_pmem ]; then
	echo 1 >"/sys/block/$disk/errors/overwrite_heals"
	check "a repair: the blocks are zeroed" zero_blocks "$folder_block" "$inode_block" "$bitmap_block" $((3 * 4096)) 0
	is_empty "a repair: nothing is listed" cat "/sys/block/$disk/badblocks"
	check "a repair: e2fsck, from a copy of the superblock" repair_file_system
	check "a repair: the file system is consistent" e2fsck -fn "/dev/$disk"
	check "a repair: it is mounted" mount_dax "$disk"
	check_good "a repair"
	is "a repair: a file of the folder is in lost+found" "$(cat "$MNT/lost+found/#$inode_of_one")" one
	is "a repair: a file with another block of inodes" "$(cat $MNT/many/1)" 1
else
	while read -r row; do
		skip "a repair: $row" "with C, a bus that can't clear poison repairs nothing"
	done <<END
the blocks are zeroed
nothing is listed
e2fsck, from a copy of the superblock
the file system is consistent
it is mounted
another file is there
a file of the folder is in lost+found
a file with another block of inodes
END
fi
