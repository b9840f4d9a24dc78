#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair repairs every bad page of a preallocated file, although its writes convert the unwritten extents around them.
# vm: --bare --e820 352M@512M
# timeout: 240
. "$(dirname "$0")/lib/test.sh"

PAGES=128

cleanup() {
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
}

plan 6
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
	is "$type: bad blocks" "$(cat "/sys/block/$disk/badblocks")" ""
	check "$type: the file has zeros" cmp -n $((PAGES * 8192)) "$MNT/file" /dev/zero
	umount "$MNT"
done
