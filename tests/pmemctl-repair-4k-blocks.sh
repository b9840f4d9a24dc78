#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair keeps a listed part of a block of 4096 bytes that can be read, compared with the backup, and replaces a bad one.
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/repair.sh"

cleanup() {
	umount "$MNT" 2>/dev/null
	forget_errors "${disk:-}"
	unload_driver
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no exact list"
need jq cmp
plan 8
load_driver
disk=$(labelled_disk -m raw -s 128M -l 4096)
list=/sys/block/$disk/device/errors/list
make_fs ext4 "$disk"
mkdir -p "$MNT"
mount "/dev/$disk" "$MNT"
file=$MNT/file
head -c 64K /dev/urandom >/tmp/right
cp /tmp/right "$file"
sync
part=$(($(disk_offset_of "$file" 40960) + 512))

echo "add $part 1024" >"$list"
is "it can be read, and is kept" "$(run_repair --zero "$file")" '0 41472+1024 0 1024 good-after-all'
is_empty "it has left the list" cat "$list"
check "the file is as it was" cmp "$file" /tmp/right
echo "add $part 1024" >"$list"
is "it is compared with the backup" "$(run_repair --from /tmp/right "$file")" '0 41472+1024 0 1024 good-after-all'
tr '\000-\377' '\001-\377\000' </tmp/right >/tmp/other
echo "add $part 1024" >"$list"
is "another one differs" "$(run_repair --from /tmp/other "$file")" '1 40960+4096 0 0 failed'
is "it is still listed" "$(cut -d ' ' -f 1,2 <"$list")" "$part 1024"
# The page cache would be kept. The bus can't clear errors.
echo 1 >/proc/sys/vm/drop_caches
echo 1 >"/sys/block/$disk/errors/overwrite_heals"
is "with --trust-list the block is replaced" "$(run_repair --trust-list --zero "$file")" '0 40960+4096 4096 0 repaired'
dd if=/dev/zero of=/tmp/right bs=4096 seek=10 count=1 conv=notrunc status=none
check "and no other byte" cmp "$file" /tmp/right
