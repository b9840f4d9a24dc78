#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl errors does not keep a file system mounted, breaks no lease, does not wait for a file system that hangs, and
# reads no inode and no block bitmap on a bad block; nor do layout and quarantine read the bitmap.
#
# An unmounted device is not examined while a process may write to it.
# vm: labels
# timeout: 180
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	touch /tmp/release
	[ -z "${walker:-}" ] || kill -CONT "$walker" 2>/dev/null
	exec 3>&- 4>&-
	umount /tmp/beside 2>/dev/null
	umount -l /tmp/hung 2>/dev/null
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	wipefs -aq "/dev/$disk"
	unload_driver
}

# has_copy: the walk has its copy of the mount, whose root has the path /.
has_copy() {
	[ -n "$(find "/proc/$walker/fd" -lname /)" ]
}

is_inactive() {
	[ ! -e "/sys/fs/ext4/$disk" ]
}

need jq wipefs setpriv
plan 22
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 448M)
make_fs ext4 "$disk" -N 25000
mount_dax "$disk"

# ---- leases ----

file=$MNT/leased
dd if=/dev/urandom of="$file" bs=64K count=1 conv=fsync status=none
echo "$(sector_of "$file") 1" >"/sys/block/$disk/badblocks"
rm -f /tmp/release /tmp/taken
pmemctl lease --exclusive "$file" -- sh -c 'touch /tmp/taken; until [ -e /tmp/release ]; do sleep 0.1; done' 2>/tmp/lease.err &
holder=$!
check "a write lease" wait_for 60 test -e /tmp/taken
is "a file with a write lease" "$(pmemctl errors --json "/dev/$disk" | jq -r '.errors[0].owner.paths[0]')" "$file"
status=0
pmemctl errors "$file" >/dev/null 2>/tmp/errors.err || status=$?
is "the file itself: its errors are unknown" "$status $(grep -c lease /tmp/errors.err)" "4 1"
touch /tmp/release
status=0
wait "$holder" || status=$?
is "the lease is held until its end" $status 0
is "and not broken" "$(grep -c 'waits for it' /tmp/lease.err)" 0

# ---- unmounted during the search ----

mkdir "$MNT/many"
(cd "$MNT/many" && seq 20000 | xargs touch)
pmemctl errors --links "/dev/$disk" >/tmp/output 2>&1 &
walker=$!
kill -STOP "$walker"
# A moment at a time, so that it is not at its end before anyone looks.
until has_copy; do
	kill -CONT "$walker"
	sleep 0.01
	kill -STOP "$walker"
done
check "umount during the search" umount "$MNT"
kill -CONT "$walker"
check "the file system is not in use any more" wait_for 60 is_inactive
status=0
wait "$walker" || status=$?
walker=
is "the search fails: the error is listed with the reason" "$status $(grep -c 'was unmounted from' /tmp/output)" "1 1"

# ---- devices in use ----

exec 3<>"/dev/$disk"
is "open for writing" "$(pmemctl errors --json "/dev/$disk" | jq -r '.errors[0].reason')" "device is busy: process $$ (sh) has $disk open"
exec 3>&-

# ---- a file system that hangs ----

# A FUSE whose process never answers, in the source of another mount.
if kernel_has fuse; then
	mkdir -p /tmp/hung /tmp/beside
	# Some kernels have it as a module. Without it, this would be a new file.
	modprobe fuse
	exec 4<>/dev/fuse
	mount -i -t fuse -o fd=4,rootmode=40000,user_id=0,group_id=0 hung /tmp/hung
	check "a mount from a directory that hangs" mount -c -t tmpfs /tmp/hung/x /tmp/beside
	status=0
	timeout 120 pmemctl errors "/dev/$disk" >/dev/null || status=$?
	is "the search ends" $status 1
	exec 4>&-
	umount /tmp/beside
	umount -l /tmp/hung
else
	skip "a mount from a directory that hangs" "this kernel has no fuse"
	skip "the search ends" "this kernel has no fuse"
fi

# ---- an inode on a bad block ----

# A failed read of an inode is an error in the file system for ext4.
forget_errors_now "$disk"
make_fs ext4 "$disk" -e remount-ro
mount_dax "$disk"
(cd "$MNT" && seq 40 | xargs touch)
dd if=/dev/urandom of="$MNT/data" bs=64K count=1 conv=fsync status=none
sector=$(sector_of "$MNT/data")
inode=$(stat -c %i "$MNT/30")
umount "$MNT"
block=$(debugfs -R "imap <$inode>" "/dev/$disk" 2>/dev/null | sed -n 's/.*located at block \([0-9]*\),.*/\1/p')
for bad in "$sector 1" "$((block * 8)) 8"; do
	echo "$bad" >"/sys/block/$disk/badblocks"
done
mount_dax "$disk"
dmesg -C
pmemctl errors --json "/dev/$disk" >/tmp/output 2>/tmp/errors.err || :
is "the files of other errors are found" "$(jq -r '.errors[].owner.paths[0]? // empty' /tmp/output)" "$MNT/data"
is "the files with an inode in that block are skipped" "$(grep -c '^pmemctl: 16 files or directories could not be read' /tmp/errors.err)" 1
is "the file system has no error" "$(dmesg | grep -c 'EXT4-fs error')" 0
check "it is writable" touch "$MNT/new"

# ---- a block bitmap on a bad block ----

umount "$MNT"
bitmap=$(dumpe2fs -g "/dev/$disk" 2>/dev/null | awk -F: -v at=$((sector / 8)) '/^[0-9]/ && $2 <= at { bitmap = $5 } END { print bitmap }')
echo "$((bitmap * 8)) 8" >"/sys/block/$disk/badblocks"
# The kernel's own search for free blocks would find it.
mount_dax "$disk" no_prefetch_block_bitmaps
dmesg -C
pmemctl errors --json >/tmp/output 2>/tmp/errors.err || :
is "a file in a group whose bitmap is bad is found" "$(jq -r '.errors[].owner.paths[0]? // empty' /tmp/output)" "$MNT/data"
is "the file system has no error by that" "$(dmesg | grep -c 'EXT4-fs error')" 0
is "the layout says what is not known" "$(pmemctl layout --json "/dev/$disk" | jq -r '.volumes[0].reason')" \
	"free space is not known where the block bitmap of a group is bad"
status=0
pmemctl quarantine "$MNT" >/dev/null 2>/tmp/quarantine.err || status=$?
is "no free block is searched for" "$status $(grep -c 'a block bitmap is bad' /tmp/quarantine.err)" "1 1"
is "the file system still has no error" "$(dmesg | grep -c 'EXT4-fs error')" 0

# ---- a user who can't read the disk ----

is "without the layout of ext4, it is not asked" "$(setpriv --reuid=65534 --regid=65534 --clear-groups \
	pmemctl errors --json "/dev/$disk" 2>/dev/null | jq -r '.errors[].reason' | sort -u)" "dumpe2fs (e2fsprogs) cannot read $disk"
is "the file system has no error by that either" "$(dmesg | grep -c 'EXT4-fs error')" 0
