#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair also writes what only the page cache has of pages around a bad one, whose writeback has failed with it.
# vm: files
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

cleanup() {
	umount "$MNT" 2>/dev/null
	drop_errors
	wipefs -aq "/dev/$disk"
	unload_driver
}

# repair_file ARGUMENT…
repair_file() {
	pmemctl repair "$@" --zero "$MNT/file"
}

drop_errors() {
	echo "drop 0 $(blockdev --getsize64 "/dev/$disk")" >"$list"
}

# drop_caches: what only the page cache has is lost.
drop_caches() {
	echo 3 >/proc/sys/vm/drop_caches
}

# write_back_all: writes all of the file to the page cache and fails, as its writeback does because of bad pages.
write_back_all() {
	dd if=/tmp/new of="$MNT/file" bs=$SIZE count=1 conv=notrunc status=none
	! sync "$MNT/file"
}

# last_is old|new: the last whole page but one of the file is that of /tmp/old or /tmp/new in memory.
last_is() {
	dd if="$MNT/file" bs=4096 skip=$((SIZE / 4096 - 2)) count=1 iflag=direct status=none >/tmp/last || return
	tail -c +$((SIZE / 4096 * 4096 - 8191)) "/tmp/$1" | head -c 4096 | cmp - /tmp/last
}

# bad_page PAGE: the page of memory in which the page of the file begins is bad; the volume begins at byte $start of the disk.
bad_page() {
	echo "add $(((start + $(disk_offset_of "$MNT/file" $(($1 * 4096)))) / 4096 * 4096)) 4096" >"$list"
}

# test_neighbours NAME PAGE…: some pages of the file are bad when it is written back.
test_neighbours() {
	name=$1
	shift
	for number; do
		bad_page "$number"
	done
	check "$name: the writeback fails" write_back_all
	check "$name: only the page cache has new data" last_is old
	check_fails "$name: the repair fails" repair_file --trust-list
	check "$name: the page cache still has the data" cmp "$MNT/file" /tmp/new
	check "$name: what is good is written" last_is new
	echo 1 >"$heals"
	check "$name: the repair succeeds where writes do" repair_file --trust-list
	is_empty "$name: nothing is listed" cat "$list"
	drop_caches
	check "$name: the memory has all new data" cmp "$MNT/file" /tmp/new
	echo 0 >"$heals"
}

# mount_new ext4|xfs VOLUME: a new file system with the old file, which the page cache has.
mount_new() {
	make_fs "$1" "$2"
	mount "/dev/$2" "$MNT"
	old_file
}

old_file() {
	rm -f "$MNT/file" "$MNT/clone"
	cp /tmp/old "$MNT/file"
	sync "$MNT/file"
	cat "$MNT/file" >/dev/null
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need cmp wipefs sfdisk filefrag
load_driver
disk=$(raw_disk "$(e820_ns)")
list=$(errors_list_of "$(e820_ns)")
heals=/sys/block/$disk/errors/overwrite_heals
plan 83
mkdir -p "$MNT"
start=0
echo 0 >"$heals"
# The last page is not whole.
SIZE=$((65536 - 96))
head -c $SIZE /dev/urandom >/tmp/old
head -c $SIZE /dev/urandom >/tmp/new
dd if=/tmp/new of=/tmp/four bs=4096 skip=8 count=4 status=none

for fs in ext4 xfs; do
	mount_new $fs "$disk"
	test_neighbours "$fs" 10
	old_file
	test_neighbours "$fs, two bad pages" 4 10

	old_file
	bad_page 10
	check "$fs, a bad page that can be read: the writeback fails" write_back_all
	check "$fs, a bad page that can be read: it is good after all" repair_file
	drop_caches
	check "$fs, a bad page that can be read: the memory has all new data" cmp "$MNT/file" /tmp/new

	old_file
	bad_page 4
	bad_page 10
	check "$fs, one of two: the writeback fails" write_back_all
	echo 1 >"$heals"
	check "$fs, one of two: it is repaired" repair_file --trust-list --offset 16384 --length 4096
	is "$fs, one of two: the other one is listed" "$(cut -d ' ' -f 1,2 "$list")" "$(disk_offset_of "$MNT/file" 40960) 4096"
	check "$fs, one of two: the page cache still has that" cmp "$MNT/file" /tmp/new
	drop_errors
	echo 0 >"$heals"

	# New data in unwritten blocks.
	rm "$MNT/file"
	fallocate -l $SIZE "$MNT/file"
	bad_page 4
	bad_page 10
	write_back_all
	echo 1 >"$heals"
	case $fs in
	# It does not convert them when it writes them a second time.
	ext4) check_fails "$fs, unwritten: the repair fails" repair_file --trust-list ;;
	xfs) check "$fs, unwritten: the repair succeeds" repair_file --trust-list && drop_caches ;;
	esac
	check "$fs, unwritten: the data is there" cmp "$MNT/file" /tmp/new
	drop_errors
	echo 0 >"$heals"

	# Two bad pages, of which the page cache has one.
	rm "$MNT/file"
	fallocate -l 64K "$MNT/file"
	bad_page 4
	bad_page 5
	dd if=/tmp/new of="$MNT/file" bs=4096 count=1 seek=4 conv=notrunc status=none
	sync "$MNT/file" 2>/dev/null || :
	echo 1 >"$heals"
	check "$fs, partly unwritten: the repair succeeds" repair_file --trust-list
	drop_caches
	check "$fs, partly unwritten: the data is there" sh -c "dd if=$MNT/file bs=4096 count=1 skip=4 status=none | cmp -n 4096 - /tmp/new"
	echo 0 >"$heals"
	[ $fs = ext4 ] || break
	umount "$MNT"
done

# Blocks that two files share are replaced.
old_file
cp --reflink=always "$MNT/file" "$MNT/clone"
bad_page 4
bad_page 10
cat "$MNT/file" >/dev/null
check "shared blocks: the repair succeeds" repair_file --trust-list
drop_caches
check "shared blocks: the file has its data" cmp "$MNT/file" /tmp/old
check "shared blocks: the bad ones are left to the other file" test "$(wc -l <"$list")" -eq 2
drop_errors
rm "$MNT/file"
cp --reflink=always "$MNT/clone" "$MNT/file"
cat "$MNT/file" >/dev/null
bad_page 4
check "shared blocks: one that the page cache has can be replaced" repair_file --trust-list --overwrite-good --offset 16384 --length 4096
drop_errors
umount "$MNT"

# Nothing is dropped, but what only the page cache has can't be written: ext4 does not convert its extent.
mount_new ext4 "$disk"
rm "$MNT/file"
fallocate -l 64K "$MNT/file"
dd if=/tmp/old of="$MNT/file" bs=4096 count=8 conv=notrunc,fsync status=none
bad_page 9
dd if=/tmp/new of="$MNT/file" bs=4096 skip=8 seek=8 count=4 conv=notrunc status=none
sync "$MNT/file" 2>/dev/null || :
drop_errors
bad_page 4
echo 1 >"$heals"
check_fails "an unwritten extent: that its data is not in memory is an error" repair_file --trust-list
is_empty "an unwritten extent: the bad page is repaired" cat "$list"
check "an unwritten extent: the page cache has the data" sh -c "dd if=$MNT/file bs=4096 skip=8 count=4 status=none |
	cmp - /tmp/four"
echo 0 >"$heals"
umount "$MNT"

# On the partition, pages of the file are in two pages of the memory each, which are written at once, past the page cache.
printf 'start=63\n' | sfdisk -q "/dev/$disk"
start=$((63 * 512))
for fs in ext4 xfs; do
	mount_new $fs "${disk}p1"
	test_neighbours "$fs on a partition" 10

	# The write of one would drop the other.
	old_file
	bad_page 4
	bad_page 10
	check "$fs on a partition, two bad pages: the writeback fails" write_back_all
	echo 1 >"$heals"
	check_fails "$fs on a partition, two bad pages: the repair fails" repair_file --trust-list
	check "$fs on a partition, two bad pages: the data is there" cmp "$MNT/file" /tmp/new
	echo 0 >"$heals"
	drop_errors
	umount "$MNT"
done
