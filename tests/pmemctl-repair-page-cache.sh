#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair loses nothing that only the page cache has, and keeps a file's capabilities.
#
# The bus has no command to clear errors, so that writes of listed pages fail.
# vm: three
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"
. "$(dirname "$0")/lib/repair.sh"

cleanup() {
	umount "$MNT" 2>/dev/null
	echo "drop 0 $size" >"$list"
	wipefs -aq "/dev/$disk"
	unload_driver
}

# repair_file ARGUMENT…: repairs the file, as run_repair does. `source` has options, of which --zero is the default.
repair_file() {
	# shellcheck disable=SC2086 # words
	run_repair ${source:---zero} "$@" "$file"
}

# capabilities: of the file, in hexadecimal.
capabilities() {
	getfattr --absolute-names -n security.capability -e hex "$file" 2>/dev/null | sed -n 's/^security.capability=//p'
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need filefrag jq cmp wipefs setfattr getfattr sfdisk
load_driver_anew
disk=$(raw_disk "$(nfit_ns)")
list=$(errors_list_of "$(nfit_ns)")
size=$(blockdev --getsize64 "/dev/$disk")
file=$MNT/file
# cap_net_raw+ep (linux/capability.h).
program=0x0100000200200000000000000000000000000000
plan 37

make_fs ext4 "$disk"
mkdir -p "$MNT"
mount "/dev/$disk" "$MNT"
dd if=/dev/urandom of=/tmp/right bs=4096 count=64 status=none
cp /tmp/right "$file"
sync
cat "$file" >/dev/null
page=$(disk_offset_of "$file" 40960)

# ---- a repair that fails ----

echo "add $page 4096" >"$list"
check "a listed page is in the page cache" cmp "$file" /tmp/right
is "it can't be written" "$(repair_file --trust-list)" '1 40960+4096 0 4096 failed'
check "the page cache still has it" cmp "$file" /tmp/right
is "it is still listed" "$(cat "$list")" "$page 4096 user"

# ---- a page that can be read, but is older than the page cache ----

dd if=/dev/urandom of=/tmp/right bs=4096 seek=10 count=1 conv=notrunc status=none
dd if=/tmp/right of="$file" bs=4096 skip=10 seek=10 count=1 conv=notrunc status=none
check_fails "a write back of new data fails" sync "$file"
setfattr -n security.capability -v $program "$file"
is "the page can be read" "$(repair_file)" '0 40960+4096 0 4096 good-after-all'
is_empty "it is not listed any more" cat "$list"
echo 3 >/proc/sys/vm/drop_caches
check "the memory has the new data" cmp "$file" /tmp/right
is "the capability of a program is still there" "$(capabilities)" $program

# ---- capabilities, on a disk whose writes repair ----

echo 1 >"/sys/block/$disk/errors/overwrite_heals"
setfattr -n security.capability -v $program "$file"
is "a program has a capability" "$(capabilities)" $program
echo 3 >/proc/sys/vm/drop_caches
echo "add $page 4096" >"$list"
is "its page is repaired" "$(repair_file --trust-list)" '0 40960+4096 4096 0 repaired'
dd if=/dev/zero of=/tmp/right bs=4096 seek=10 count=1 conv=notrunc status=none
check "by zeroes" cmp "$file" /tmp/right
is "it still has the capability" "$(capabilities)" $program
umount "$MNT"
mount "/dev/$disk" "$MNT"
is "and when it is mounted again" "$(capabilities)" $program

# ---- new data whose extent is still unwritten, because its writeback has failed ----

# write_new_data PAGE: writes a page of the file to the page cache alone: in memory, it is listed.
write_new_data() {
	echo "add $(($(disk_offset_of "$file" 0) + $1 * 4096)) 4096" >"$list"
	dd if=/tmp/new of="$file" bs=4096 skip="$1" seek="$1" count=1 conv=notrunc status=none
	! sync "$file"
}
file=$MNT/new
fallocate -l 64K "$file"
dd if=/dev/zero of=/tmp/new bs=4096 count=16 status=none
dd if=/dev/urandom of=/tmp/new bs=4096 seek=2 count=2 conv=notrunc status=none
echo 0 >"/sys/block/$disk/errors/overwrite_heals"
check "a write back to an unwritten extent fails" write_new_data 2
is "that page can be read, but has none of it" "$(repair_file)" '1 8192+4096 0 4096 failed'
check "the page cache still has the data" cmp -n 12288 "$file" /tmp/new
check "a write back to its neighbour fails" write_new_data 3
echo 1 >"/sys/block/$disk/errors/overwrite_heals"
is "with --trust-list, nothing is replaced" "$(repair_file --trust-list)" '0 8192+8192 0 8192 repaired'
is_empty "nothing is listed" cat "$list"
echo 3 >/proc/sys/vm/drop_caches
check "the memory has the new data of both" cmp "$file" /tmp/new
echo 0 >"/sys/block/$disk/errors/overwrite_heals"
dd if=/dev/urandom of=/tmp/new bs=4096 seek=8 count=4 conv=notrunc status=none
echo "add $(($(disk_offset_of "$file" 0) + 9 * 4096)) 4096" >"$list"
dd if=/tmp/new of="$file" bs=16K skip=2 seek=2 count=1 conv=notrunc status=none
check_fails "a write back of several pages fails" sync "$file"
is "without them, their neighbour is not written" "$(repair_file --trust-list | sed 's/^\(.\) .* /\1 /')" '1 failed'
check "the page cache has all of them" cmp "$file" /tmp/new
echo 1 >"/sys/block/$disk/errors/overwrite_heals"
echo "drop 0 $size" >"$list"
rm "$file"
file=$MNT/file

# ---- a page that can be read, but differs from the backup ----

cp /tmp/right /tmp/backup
dd if=/dev/urandom of=/tmp/backup bs=4096 seek=10 count=1 conv=notrunc status=none
echo 3 >/proc/sys/vm/drop_caches
echo "add $page 4096" >"$list"
source='--from /tmp/backup'
is "it is not kept, and not replaced" "$(repair_file)" '1 40960+4096 0 0 failed'
check_fails "the page cache has no copy of it" cmp "$file" /tmp/right
is "with --trust-list it is replaced" "$(repair_file --trust-list)" '0 40960+4096 4096 0 repaired'
check "by the backup" cmp "$file" /tmp/backup
source=

# ---- extended attributes ----

# Of a file with attributes in its inode as well, the kernel only says where these are.
file=$MNT/other
echo >"$file"
setfattr -n user.x -v "$(printf '%03000d' 0)" "$file"
sync
block=$(debugfs -R 'stat other' "/dev/$disk" 2>/dev/null | sed -n 's/.*File ACL: \([0-9]*\).*/\1/p')
check "the attributes have a block" test "$block" -gt 0
echo "add $((block * 4096)) 4096" >"$list"
is "a file whose attributes are bad is not good" "$(repair_file)" '1 '
check "the reason is said" grep -q 'extended attributes are in a bad block' /tmp/repair.json
is "the attributes are still listed" "$(cat "$list")" "$((block * 4096)) 4096 user"
setfattr -n user.a -v x "$file"
sync
is "nor is one with attributes in its inode as well" "$(repair_file)" '1 '
echo "drop 0 $size" >"$list"
is "without that error, it is good" "$(repair_file)" '0 '

# ---- a partition that does not begin at a page: pages of the file are in two pages of the memory each ----

umount "$MNT"
echo 0 >"/sys/block/$disk/errors/overwrite_heals"
printf 'start=63\n' | sfdisk -q "/dev/$disk"
make_fs ext4 "${disk}p1"
mount "/dev/${disk}p1" "$MNT"
file=$MNT/file
cp /tmp/right "$file"
sync
cat "$file" >/dev/null
page=$((63 * 512 + $(disk_offset_of "$file" 40960)))
echo "add $page 4096" >"$list"
check "the page cache has the pages around one that is listed" cmp "$file" /tmp/right
repair_file --trust-list >/dev/null
is "they can't be written" "$(jq -r '[.pieces[].result] | unique | join(" ")' /tmp/repair.json)" failed
check "the page cache has them again" cmp "$file" /tmp/right
