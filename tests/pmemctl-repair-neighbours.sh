#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair also writes what only the page cache has of pages around a bad one, whose writeback has failed with it.
# vm: --bare --e820 352M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

cleanup() {
	umount "$MNT" 2>/dev/null
	echo "drop 0 $(blockdev --getsize64 "/dev/$disk")" >"$list"
	echo 0 >"$heals"
	wipefs -aq "/dev/$disk"
	unload_driver
}

repair_file() {
	pmemctl repair --trust-list --zero "$MNT/file"
}

# fail_writeback BYTES: a write of 16 pages to the page cache, whose writeback fails because of a bad page among them. The volume
# begins at so many bytes of the disk.
fail_writeback() {
	echo 0 >"$heals"
	cp /tmp/old "$MNT/file"
	sync "$MNT/file"
	cat "$MNT/file" >/dev/null
	echo "add $(($1 + $(disk_offset_of "$MNT/file" 40960))) 4096" >"$list"
	dd if=/tmp/new of="$MNT/file" bs=64K count=1 conv=notrunc status=none
	! sync "$MNT/file"
}

# test_neighbours ext4|xfs VOLUME BYTES: of a volume that begins at so many bytes of its disk.
test_neighbours() {
	make_fs "$1" "$2"
	mount "/dev/$2" "$MNT"
	check "$1 on $2: the writeback fails" fail_writeback "$3"
	check "$1 on $2: only the page cache has new data" cmp "$MNT/file" /tmp/new
	check_fails "$1 on $2: the repair fails" repair_file
	check "$1 on $2: the page cache still has it" cmp "$MNT/file" /tmp/new
	echo 1 >"$heals"
	check "$1 on $2: the repair succeeds where writes do" repair_file
	is_empty "$1 on $2: nothing is listed" cat "$list"
	echo 3 >/proc/sys/vm/drop_caches
	check "$1 on $2: the memory has all new data" cmp "$MNT/file" /tmp/new
	umount "$MNT"
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need cmp wipefs sfdisk filefrag
load_driver
disk=$(disk_of "$(e820_ns)")
list=$(errors_list_of "$(e820_ns)")
heals=/sys/block/$disk/errors/overwrite_heals
plan 28
mkdir -p "$MNT"
dd if=/dev/urandom of=/tmp/old bs=64K count=1 status=none
dd if=/dev/urandom of=/tmp/new bs=64K count=1 status=none

for fs in ext4 xfs; do
	test_neighbours $fs "$disk" 0
done

# On the partition, pages of the file are in two pages of the memory each, which are written at once, past the page cache.
printf 'start=63\n' | sfdisk -q "/dev/$disk"
for fs in ext4 xfs; do
	test_neighbours $fs "${disk}p1" $((63 * 512))
done
