#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl errors has three answers, bad, good and unknown: through dm-crypt, below md, in sector mode, on other memory.
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

md=md127

cleanup() {
	umount "$MNT" 2>/dev/null
	dmsetup remove --retry crypted 2>/dev/null
	mdadm -q --stop /dev/$md 2>/dev/null
	fresh_labels
}

# errors_status TARGET: the exit status of pmemctl errors.
errors_status() {
	answer=0
	pmemctl errors "$@" >/tmp/output 2>/tmp/errors || answer=$?
	sed 's/^/# /' /tmp/output /tmp/errors >&2
	echo $answer
}

need dmsetup mdadm filefrag jq
case $DRIVER in
rust_pmem) plan 14 ;;
*) plan 9 ;;
esac
load_driver

# ---- dm-crypt keeps each sector at its place ----

make_two_disks -m fsdax -M mem -s 96M
modprobe dm-crypt
dmsetup create crypted --table "0 131072 crypt aes-xts-plain64 $(printf '%064d' 7) 0 /dev/$FIRST 2048"
dmsetup mknodes
mkfs.ext4 -q -F -b 4096 /dev/mapper/crypted
mkdir -p "$MNT"
mount /dev/mapper/crypted "$MNT"
for name in file other; do
	dd if=/dev/urandom of="$MNT/$name" bs=1M count=1 conv=fsync status=none
done
is "dm-crypt: a file without errors" "$(errors_status "$MNT/file")" 0
echo "$((2048 + $(sector_of "$MNT/file" 40960))) 8" >"/sys/block/$FIRST/badblocks"
is "dm-crypt: a file with an error" "$(errors_status "$MNT/file")" 1
is "dm-crypt: and its offset" "$(pmemctl errors --json "$MNT/file" | jq -c '[.errors[].owner.file_offset]')" '[40960]'
is "dm-crypt: another file" "$(errors_status "$MNT/other")" 0
umount "$MNT"
dmsetup remove --retry crypted
forget_errors "$FIRST"

# ---- md is not followed ----

make_two_disks -m fsdax -M mem -s 96M
mdadm -q --create /dev/$md --run --metadata=1.2 --homehost=none --bitmap=none --level=1 --raid-devices=2 --assume-clean \
	"/dev/$FIRST" "/dev/$SECOND"
mkfs.ext4 -q -F -b 4096 /dev/$md
mount /dev/$md "$MNT"
echo content >"$MNT/file"
sync
is "md: a file, with no errors below" "$(errors_status "$MNT/file")" 0
echo "100000 8" >"/sys/block/$SECOND/badblocks"
is "md: a file, with an error below" "$(errors_status "$MNT/file")" 4
is "md: the disk itself" "$(errors_status "/dev/$SECOND")" 1
umount "$MNT"
mdadm -q --stop /dev/$md
mdadm -q --zero-superblock "/dev/$FIRST" "/dev/$SECOND"

# ---- no persistent memory ----

echo content >/tmp/file
is "a file that is not on persistent memory" "$(errors_status /tmp/file)" 4
is "it and the disk with an error" "$(errors_status /tmp/file "/dev/$SECOND")" 1

forget_errors "$SECOND"

# ---- sector mode ----

if [ "$DRIVER" = rust_pmem ]; then
	disk=$(labelled_disk -m sector -l 4096 -s 96M)
	mkfs.ext4 -q -F -b 4096 "/dev/$disk"
	mount "/dev/$disk" "$MNT"
	echo content >"$MNT/file"
	sync
	is "sector mode: a file, with no errors listed" "$(errors_status "$MNT/file")" 0
	echo "add $((80 << 20)) 4096" >"/sys/block/$disk/device/errors/list"
	is "sector mode: a file" "$(errors_status "$MNT/file")" 4
	is "sector mode: the mount" "$(errors_status "$MNT")" 4
	is "sector mode: the disk" "$(errors_status "/dev/$disk")" 1
	pmemctl errors --json "/dev/$disk" >/tmp/errors.json || :
	is "sector mode: with its place in the namespace" \
		"$(jq -c '[.errors[] | [.namespace_offset, .length]]' /tmp/errors.json)" "[[$((80 << 20)),4096]]"
	umount "$MNT"
	forget_errors "$disk"
fi
