#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An aligned partition supports DAX; on a misaligned one ext4 refuses DAX, XFS mounts without it, and block I/O works.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

need sfdisk fio xfs_repair
cleanup() {
	umount $MNT 2>/dev/null
	[ ! -e "/dev/$disk" ] || sfdisk -q --delete "/dev/$disk"
}

# check_place NAME PARTITION: data written to the partition is at its place in the disk.
check_place() {
	start=$(cat "/sys/class/block/$2/start")
	pmem-io fill --direct "/dev/$2" --offset 4K --length 4M
	check "$1: what is written to it is on the disk" cmp -n 4194304 -i "$((start * 512 + 4096)):4096" "/dev/$disk" "/dev/$2"
}

plan 24
load_driver
disk=$(labelled_disk -m fsdax -M mem)
clean_disk "$disk"
sfdisk -q "/dev/$disk" <<END
label: gpt
start=4096, size=614400
start=618505, size=131072
END
aligned=${disk}p1
odd=${disk}p2
is "both are there" "$(cat "/sys/block/$disk/$aligned/size" "/sys/block/$disk/$odd/size" | tr '\n' ' ')" "614400 131072 "
record "how far off a page they say they are" "$(cat "/sys/block/$disk/$aligned/alignment_offset" "/sys/block/$disk/$odd/alignment_offset")"
check_place aligned "$aligned"
check_place misaligned "$odd"
# XFS does not support reflink with DAX on a partition.
make_fs xfs "$aligned"
check_fails "aligned, xfs with reflink: refused" mount_dax "$aligned"
for type in ext4 xfs; do
	case $type in
	ext4) make_fs ext4 "$aligned" ;;
	xfs) make_fs xfs "$aligned" -m reflink=0 ;;
	esac
	check "aligned, $type: mounted with DAX" mount_dax "$aligned"
	check "aligned, $type: all of it is DAX" grep -q "^/dev/$aligned .*dax=always" /proc/mounts
	truncate -s 4M $MNT/file
	check "aligned, $type: MAP_SYNC" pmem-io map-write --sync --durable flush $MNT/file
	check "aligned, $type: read(2) sees it" pmem-io verify $MNT/file
	umount $MNT
done
check "aligned: fsck" xfs_repair -n "/dev/$aligned"

make_fs xfs "$odd" -m reflink=0 --unsupported 2>/dev/null
mount -o dax=always "/dev/$odd" $MNT
check "misaligned, xfs: mounted without DAX" grep -q "^/dev/$odd .*dax=never" /proc/mounts
umount $MNT
make_fs ext4 "$odd"
dmesg -C
record_result "misaligned, ext4: with DAX" sh -c "mount -o dax=always /dev/$odd $MNT 2>&1 | head -n 1 | sed 's/on .*//'; mountpoint -q $MNT"
record "misaligned, ext4: what the kernel says" "$(dmesg | grep -i dax | sed 's/^[^]]*] //')"
check "misaligned, ext4: dax=inode" mount -o dax=inode "/dev/$odd" $MNT
truncate -s 1M $MNT/file
check_fails "misaligned, ext4: but no MAP_SYNC" pmem-io map-write --sync $MNT/file
check "misaligned, ext4: an ordinary mapping" pmem-io map-write --durable msync $MNT/file
umount $MNT
check "misaligned: fsck" e2fsck -fn "/dev/$odd"
check "misaligned: fio reads back what it wrote" fio_verify "/dev/$odd" --size=8M --bssplit=512/30:1536/20:4k/30:64k/20 --blockalign=512

# Partitions disappear when the table is deleted.
sfdisk -q --delete "/dev/$disk" 2
check_fails "a partition that is deleted is gone" test -e "/sys/block/$disk/$odd"
sfdisk -q --delete "/dev/$disk"
check_fails "and so is the other" test -e "/sys/block/$disk/$aligned"
