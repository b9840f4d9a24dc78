#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair of a file on a striped volume over two partitions repairs the right bytes of the disk and no others.
# vm: files
. "$(dirname "$0")/lib/test.sh"

CHUNK=65536

cleanup() {
	clean_up_volumes "$disk"
}

# offset_on_disk BYTE OF THE VOLUME: see Documentation/admin-guide/device-mapper/striped.rst.
offset_on_disk() {
	chunk=$(($1 / CHUNK))
	part=$((chunk % 2 + 1))
	start=$(($(cat "/sys/block/$disk/${disk}p$part/start") * 512))
	stripe=$((chunk / 2))
	echo $((start + stripe * CHUNK + $1 % CHUNK))
}

# page_checksum OFFSET: of a page of the disk.
page_checksum() {
	dd if="/dev/$disk" iflag=direct,skip_bytes skip="$1" bs=4096 count=1 status=none | cksum
}

need sfdisk dmsetup filefrag jq wipefs
modprobe dm-mod
plan 9
load_driver
disk=$(e820_disk)
mkdir -p "$MNT"
wipefs -aq "/dev/$disk"
printf 'start=2M,size=40M\nstart=46M,size=40M\n' | sfdisk -q "/dev/$disk"
wait_for 60 test -b "/dev/${disk}p2"
dmsetup create stripes --table "0 $((80 * 2048)) striped 2 $((CHUNK / 512)) /dev/${disk}p1 0 /dev/${disk}p2 0"
dmsetup mknodes
mkfs.ext4 -q -F -b 4096 /dev/mapper/stripes
mount -o dax,noatime /dev/mapper/stripes "$MNT"
for name in before file behind; do
	fallocate -l 4M "$MNT/$name"
	pmem-io fill "$MNT/$name"
done
sync
cp "$MNT/file" /tmp/backup
# In neighbouring chunks, which are on different partitions.
one=$(offset_on_disk "$(disk_offset_of "$MNT/file" 1048576)")
other=$(offset_on_disk "$(disk_offset_of "$MNT/file" $((1048576 + CHUNK + 512)))")
check "on both partitions" test $((one > (44 << 20))) -ne $((other > (44 << 20)))
right=$(page_checksum "$one")
echo "$((one / 512)) 8" >"/sys/block/$disk/badblocks"
echo "$((other / 512)) 1" >"/sys/block/$disk/badblocks"
is "their owner" "$(pmemctl errors --json "/dev/$disk" | jq -c '[.errors[] | [.volume, .owner.paths[0], .owner.file_offset, .length]] | sort')" \
	"[[\"stripes\",\"$MNT/file\",1048576,4096],[\"stripes\",\"$MNT/file\",$((1048576 + CHUNK + 512)),512]]"
is "by the volume" "$(pmemctl errors --json /dev/mapper/stripes | jq '.errors | length')" 2
is "by the file" "$(pmemctl errors --json "$MNT/file" | jq '.errors | length')" 2
check "repaired" pmemctl repair --trust-list "$MNT/file" --from /tmp/backup
is_empty "nothing is listed" cat "/sys/block/$disk/badblocks"
is "the disk has what it had there" "$(page_checksum "$one")" "$right"
check "the file is whole" cmp /tmp/backup "$MNT/file"
check "so are its neighbours" sh -c "pmem-io verify $MNT/before && pmem-io verify $MNT/behind"
