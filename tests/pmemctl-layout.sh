#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl layout shows partitions, files, metadata, free space and bad sectors of a disk with ext4 and XFS, mounted or
# not.
# vm: labels
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"

cleanup() {
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	wipefs -aq "/dev/$disk"
	unload_driver
}

# read_layout: reads the layout of the disk, for the next two.
read_layout() {
	pmemctl layout --json "$disk" >/tmp/layout.json
}

# cell_kind OFFSET: the kind of the cell that holds this byte of the disk.
cell_kind() {
	jq -r ".cells[] | select(.offset <= $1 and $1 < .offset + .length) | .kind" /tmp/layout.json
}

# sum_of_kind KIND: the number of bytes of this kind.
sum_of_kind() {
	jq "[.sums[] | select(.kind == \"$1\").bytes] | add // 0" /tmp/layout.json
}

need sfdisk filefrag dumpe2fs xfs_io xfs_db
plan 31
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 448M)
size=$(($(cat "/sys/block/$disk/size") * 512))
# Remove old signatures.
wipefs -aq "/dev/$disk"

check "a disk without anything" pmemctl layout "$disk"
read_layout
is "is not known" "$(sum_of_kind other)" "$size"
is "in as many cells as asked" "$(pmemctl layout --json --cells 10 "$disk" | jq '.cells | length')" 10
is "which are all of it" "$(pmemctl layout --json --cells 1000 "$disk" | jq '[.cells[].length] | add')" "$size"

# ---- ext4 in a partition, and an empty partition ----

printf 'start=2M,size=64M\nstart=80M,size=300M\n' | sfdisk -q "/dev/$disk"
wait_for 60 test -b "/dev/${disk}p2"
start=$((2 << 20))
make_fs ext4 "${disk}p1"
mount_dax "${disk}p1"
dd if=/dev/urandom of="$MNT/file" bs=1M count=10 conv=fsync status=none
sync -f "$MNT"
file=$(disk_offset_of "$MNT/file" 0)
for mounted in mounted 'not mounted'; do
	[ "$mounted" = mounted ] || umount "$MNT"
	read_layout
	is "$mounted: a file" "$(cell_kind $((start + file + (5 << 20))))" files
	is "$mounted: an inode table" "$(cell_kind $((start + 4096 * $(dumpe2fs "/dev/${disk}p1" 2>/dev/null | sed -n 's/.*Inode table at \([0-9]*\).*/\1/p' | head -n 1) + (512 << 10))))" metadata
	is "$mounted: free space" "$(cell_kind $((start + (60 << 20))))" free
	case $mounted in
	mounted) free=$(stat -f -c %f "$MNT") ;;
	*) free=$(dumpe2fs -h "/dev/${disk}p1" 2>/dev/null | awk '/^Free blocks:/ { print $3 }') ;;
	esac
	is "$mounted: as much as the file system says" "$(sum_of_kind free)" $((free * 4096))
	is "$mounted: before the first partition" "$(cell_kind 4096)" outside
	is "$mounted: each byte is something" "$(jq '[.sums[].bytes] | add' /tmp/layout.json)" "$size"
done
check_schema layout /tmp/layout.json
is "the volumes" "$(jq -c '[.volumes[] | [.name, .offset, .length, .file_system]]' /tmp/layout.json)" \
	"[[\"${disk}p1\",$start,$((64 << 20)),\"ext4\"],[\"${disk}p2\",$((80 << 20)),$((300 << 20)),null]]"

# ---- a single bad sector ----

at=$((start + file + (5 << 20)))
echo "$((at / 512)) 1" >"/sys/block/$disk/badblocks"
pmemctl layout --svg /tmp/map.svg --cells 256 "$disk" >/tmp/map.txt
is "one cell is bad" "$(sed -n 2,5p /tmp/map.txt | cut -c10- | tr -cd X)" X
is "the same in JSON" "$(pmemctl layout --json --cells 256 "$disk" | jq -c '[.cells[] | select(.bad > 0) | .kind]')" '["files"]'
is "at the offset" "$(pmemctl layout --json --cells 256 "$disk" |
	jq -c "[.cells[] | select(.bad > 0) | .offset <= $at and $at < .offset + .length]")" '[true]'
is "it is at its place" "$(pmemctl layout --json --cells 256 "$disk" | jq '.cells | map(.bad > 0) | index(true)')" \
	"$(sed -n 2,5p /tmp/map.txt | cut -c10- | tr -d '\n' | awk '{ print index($0, "X") - 1 }')"
is "the picture has it, and the legend" "$(grep -c 'fill="#d62728"' /tmp/map.svg)" 2
is "it is in one cell, however many" "$(pmemctl layout --cells 10000 "$disk" | grep -o 'in 1 cell$')" 'in 1 cell'
forget_errors_now "$disk"

# ---- XFS ----

for options in '-m rmapbt=1' '-m rmapbt=0'; do
	rest=files
	[ "$options" = '-m rmapbt=1' ] || rest=used
	wipefs -aq "/dev/$disk"
	blockdev --rereadpt "/dev/$disk"
	# shellcheck disable=SC2086 # several words
	make_fs xfs "$disk" $options
	mount_dax "$disk"
	dd if=/dev/urandom of="$MNT/file" bs=1M count=10 conv=fsync status=none
	sync -f "$MNT"
	file=$(disk_offset_of "$MNT/file" 0)
	read_layout
	is "XFS $options: a file" "$(cell_kind $((file + (5 << 20))))" $rest
	umount "$MNT"
	read_layout
	is "XFS $options, not mounted: free space, as xfs_db says" "$(sum_of_kind free)" \
		"$(xfs_db -r -c 'freesp -s' "/dev/$disk" | awk '/^total free blocks/ { print $4 * 4096 }')"
	log=$(xfs_db -r -c 'sb 0' -c 'print logstart' "/dev/$disk" | awk '/^logstart/ { print $3 }')
	is "XFS $options, not mounted: the journal" "$(cell_kind $(($(xfs_db -r -c "convert fsblock $log daddr" "/dev/$disk" | sed 's/.*(\([0-9]*\)).*/\1/') * 512 + (1 << 20))))" metadata
done
check_fails "no device" pmemctl layout none
