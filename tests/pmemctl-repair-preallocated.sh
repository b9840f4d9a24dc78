#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair repairs every bad page of a preallocated file, although its writes convert the unwritten extents around them.
#
# Blocks that are preallocated behind the end of a file remain, although the repair of its last page truncates it.
# vm: files
# timeout: 240
. "$(dirname "$0")/lib/test.sh"

PAGES=128

cleanup() {
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
}

# last_page BYTE: makes the last page of the file bad, after the file got this byte in it.
last_page() {
	printf '%s' "$1" | dd of="$MNT/last" bs=1 seek=5000 conv=notrunc,fsync status=none
	echo 3 >/proc/sys/vm/drop_caches
	echo "$(sector_of "$MNT/last" 4096) 8" >"/sys/block/$disk/badblocks"
}

need strace jq
plan 18
load_driver
disk=$(e820_disk)
for type in ext4 xfs; do
	wipefs -aq "/dev/$disk"
	make_fs $type "$disk"
	mount_dax "$disk"
	fallocate -l $((PAGES * 8192)) "$MNT/file"
	first=$(sector_of "$MNT/file")
	i=0
	while [ $i -lt $PAGES ]; do
		echo "$((first + i * 16)) 8" >"/sys/block/$disk/badblocks"
		i=$((i + 1))
	done
	pmemctl repair --trust-list --zero --json "$MNT/file" >/tmp/repair 2>/tmp/errors || :
	is "$type: results" "$(jq -r '.pieces | group_by(.result) | map("\(length) \(.[0].result)") | join(", ")' /tmp/repair)" "$PAGES repaired"
	is_empty "$type: bad blocks" cat "/sys/block/$disk/badblocks"
	check "$type: the file has zeros" cmp -n $((PAGES * 8192)) "$MNT/file" /dev/zero

	dd if=/dev/urandom of=/tmp/right bs=6000 count=1 status=none
	cp /tmp/right "$MNT/last"
	fallocate -n -o 64K -l 256K "$MNT/last"
	sync
	blocks=$(stat -c %b "$MNT/last")
	check "$type: blocks behind the end" test "$blocks" -ge 512
	last_page x
	is "$type: the last page" "$(pmemctl repair --trust-list --force --from /tmp/right --json "$MNT/last" 2>/dev/null | jq -r '.pieces[].result')" repaired
	check "$type: the file is right" cmp "$MNT/last" /tmp/right
	is "$type: and has its blocks" "$(stat -c %b "$MNT/last")" "$blocks"
	last_page y
	strace -f -qq -o /dev/null -e trace=ftruncate -e inject=ftruncate:error=EDQUOT \
		pmemctl repair --trust-list --force --from /tmp/right --json "$MNT/last" >/tmp/repair 2>/tmp/errors || :
	is "$type: not truncated" "$(jq -r '.pieces[] | "\(.result): \(.reason)"' /tmp/repair)" \
		'failed: written, but the file has not its old size of 6000 bytes and its old blocks behind that: Disk quota exceeded (os error 122)'
	check "$type: but written" cmp -n 6000 "$MNT/last" /tmp/right
	umount "$MNT"
done
