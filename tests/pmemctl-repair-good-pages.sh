#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair keeps listed pages that can be read, unless they differ from the backup, and replaces no good page
# beside a bad one, nor what another file has there, with 400 errors listed.
# vm: files
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"
. "$(dirname "$0")/lib/repair.sh"

COUNT=400
START=$((2 << 20))

cleanup() {
	[ ! -e /tmp/node ] || mv /tmp/node "/dev/${disk}p1"
	umount "$MNT" /tmp/small 2>/dev/null
	forget_errors "$disk"
	wipefs -aq "/dev/$disk"
	unload_driver
}

# count_listed: the number of ranges on the exact list.
count_listed() {
	wc -l <"$list"
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no exact list"
need sfdisk filefrag jq cmp wipefs
plan 25
load_driver
disk=$(raw_disk "$(e820_ns)")
list=$(errors_list_of "$(e820_ns)")
wipefs -aq "/dev/$disk"
printf 'start=2M,size=96M\nstart=320M,size=16M\n' | sfdisk -q "/dev/$disk"
wait_for 60 test -b "/dev/${disk}p1"
make_fs ext4 "${disk}p1"
mount_dax "${disk}p1"
file=$MNT/file
dd if=/dev/urandom of=/tmp/right bs=4096 count=256 status=none
cp /tmp/right "$file"
sync
# More errors than badblocks can hold, behind the partition.
list_every $((100 << 20)) $((512 << 10)) $COUNT | edit_list add "$list"
page=$((START + $(disk_offset_of "$file" 40960)))
echo "add $page 4096" >"$list"

is "one page of the file is listed" "$(pmemctl errors --json "$file" | jq -c '[.errors[] | [.owner.file_offset, .length]]')" '[[40960,4096]]'
is "a dry run reads nothing" "$(run_repair --dry-run --zero "$file") $(count_listed)" "0 40960+4096 4096 0 planned $((COUNT + 1))"
is "it can be read, and is kept" "$(run_repair --zero "$file")" '0 40960+4096 0 4096 good-after-all'
check "the file is as it was" cmp "$file" /tmp/right
is "only its page was taken off the list" "$(count_listed)" $COUNT
check "the file has no errors" pmemctl errors "$file"

echo "add $page 4096" >"$list"
tr '\000-\377' '\001-\377\000' </tmp/right >/tmp/other
is "a backup of another version is not used" "$(run_repair --trust-list --from /tmp/other "$file")" '1 '
is "with --trust-list it is replaced" "$(run_repair --trust-list --zero "$file")" '0 40960+4096 4096 0 repaired'
dd if=/dev/zero of=/tmp/right bs=4096 seek=10 count=1 conv=notrunc status=none
check "and no other byte" cmp "$file" /tmp/right
is "the others are still listed" "$(count_listed)" $COUNT

# A restart of a virtual machine may have put other memory in its place, such as zeroes.
page=$((START + $(disk_offset_of "$file" 53248)))
next=$((START + $(disk_offset_of "$file" 61440)))
dd if=/dev/zero of="/dev/$disk" bs=4096 seek=$((page / 4096)) count=1 oflag=direct conv=notrunc status=none
echo "add $page 4096" >"$list"
echo "add $next 4096" >"$list"
is "a page that differs from the backup is not kept, and not replaced" "$(run_repair --from /tmp/right "$file")" '1 53248+4096 0 0 failed, 61440+4096 0 4096 good-after-all'
is "it is still listed" "$(count_listed) $(grep -c "^$page 4096" "$list")" "$((COUNT + 1)) 1"
check "what to do is said" grep -q 'differs from the backup.*--trust-list' /tmp/repair.json
head -c 53248 /tmp/right >/tmp/short
is "nor is one that the backup lacks" "$(run_repair --from /tmp/short "$file") $(grep -c "^$page 4096" "$list")" '1  1'
is "with --trust-list that is replaced" "$(run_repair --trust-list --from /tmp/right "$file")" '0 53248+4096 4096 0 repaired'
check "by the backup" cmp "$file" /tmp/right
is "it is listed no more" "$(count_listed)" $COUNT

# A node of another device: the whole disk, at whose offsets there are other bytes.
page=$((START + $(disk_offset_of "$file" 45056)))
echo "add $page 512" >"$list"
mv "/dev/${disk}p1" /tmp/node
# shellcheck disable=SC2046 # two numbers
mknod "/dev/${disk}p1" b $(stat -c '%Hr %Lr' "/dev/$disk")
is "a node of another device is refused" "$(run_repair --trust-list --zero "$file")" '1 '
check "with a reason" grep -q "/dev/${disk}p1: this is not the device" /tmp/repair.err
mv /tmp/node "/dev/${disk}p1"
is "with the right node, one sector is replaced" "$(run_repair --trust-list --zero "$file")" '0 45056+4096 512 3584 repaired'
dd if=/dev/zero of=/tmp/right bs=512 seek=88 count=1 conv=notrunc status=none
check "and the rest of the page is as it was" cmp "$file" /tmp/right

# Blocks of 1 KiB: a page has some of several files.
mkfs.ext4 -q -F -b 1024 -O ^has_journal "/dev/${disk}p2" 2>/dev/null
mkdir -p /tmp/small
mount "/dev/${disk}p2" /tmp/small
for number in 1 2 3 4 5 6 7 8; do
	head -c 1024 /dev/urandom >/tmp/small/$number
done
sync

# offset_on_disk NUMBER: of the block of a file.
offset_on_disk() {
	echo $(((320 << 20) + $(disk_offset_of "/tmp/small/$1" 0)))
}

one=1
until [ $(($(offset_on_disk $one) / 4096)) -eq $(($(offset_on_disk $((one + 1))) / 4096)) ]; do
	one=$((one + 1))
done
other=$((one + 1))
for number in $one $other; do
	echo "add $(offset_on_disk "$number") 1024" >"$list"
done
is "two files in one page: the block of one is kept" "$(run_repair --zero /tmp/small/$one)" '0 0+1024 0 1024 good-after-all'
is "that of the other is still listed" "$(pmemctl errors --json /tmp/small/$other | jq -c '[.errors[].length]')" '[1024]'
is "until that is repaired" "$(run_repair --zero /tmp/small/$other)" '0 0+1024 0 1024 good-after-all'
is "then both have left the list" "$(count_listed)" $COUNT
