#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair refuses unsafe targets with a reason and without any change, also if the file changes meanwhile.
#
# Covers shared blocks, and memory whose poison cannot be cleared.
# vm: files
# timeout: 300
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	touch /tmp/unmap
	dmsetup resume backup 2>/dev/null
	umount /tmp/bound "$MNT" /tmp/other /tmp/backups 2>/dev/null
	dmsetup remove_all --force 2>/dev/null
	forget_errors "$disk"
	forget_errors "$nvdimm"
	unload_driver
}

list_badblocks() {
	tr '\n' , <"/sys/block/$disk/badblocks"
}

# refuses NAME TEXT ARGUMENT…: exit status 1, with this text and without any change. The pages that are listed here
# can be read.
refuses() {
	refuse_name=$1
	refuse_text=$2
	shift 2
	refuse_status=0
	refuse_before="$(list_badblocks) $(stat -c '%s %y %z' "$file")"
	pmemctl repair --trust-list "$@" >/tmp/refused 2>&1 || refuse_status=$?
	sed 's/^/# /' /tmp/refused
	if [ "$refuse_status" -eq 1 ] && grep -q "$refuse_text" /tmp/refused; then
		is "$refuse_name" "$(list_badblocks) $(stat -c '%s %y %z' "$file")" "$refuse_before"
	else
		not_ok "$refuse_name"
	fi
}

# meanwhile NAME TEXT COMMAND…: runs the command while the repair reads the backup. The repair stops with this text, and
# the error stays listed.
meanwhile() {
	meanwhile_name=$1
	meanwhile_text=$2
	shift 2
	echo 3 >/proc/sys/vm/drop_caches
	dmsetup suspend --noflush --nolockfs backup
	pmemctl repair --trust-list "$file" --from /tmp/backups/backup >/tmp/repaired 2>&1 &
	meanwhile_pid=$!
	check "$meanwhile_name: it waits for the backup" wait_for 30 waits_in_read "$meanwhile_pid"
	"$@" &
	meanwhile_other=$!
	# Either it has ended or it waits for the lease.
	wait_for 60 over_or_waiting "$meanwhile_other" 2>/dev/null || :
	dmsetup resume backup
	meanwhile_status=0
	wait "$meanwhile_pid" || meanwhile_status=$?
	wait "$meanwhile_other" || :
	sed 's/^/# /' /tmp/repaired
	is "$meanwhile_name: status" "$meanwhile_status" 1
	check "$meanwhile_name: why" grep -q "$meanwhile_text" /tmp/repaired
	check "$meanwhile_name: it is still listed" grep -qx "$listed" "/sys/block/$disk/badblocks"
}

# waits_in_read PID: it waits for the backup, not for pages of its own executable.
waits_in_read() {
	grep -q ') D ' "/proc/$1/stat" && cat "/proc/$1/stack" >/tmp/stack &&
		grep -q 'ext4_\|pread64' /tmp/stack && ! grep -q 'fault\|execve' /tmp/stack
}

over_or_waiting() {
	! kill -0 "$1" 2>/dev/null || grep -q ') Z ' "/proc/$1/stat" || grep -q break_lease /proc/[0-9]*/stack
}

# make_file: a new file with a bad page.
make_file() {
	forget_errors "$disk"
	rm -f "$file"
	cp --reflink=never /tmp/right "$file"
	sync
	listed="$(sector_of "$file" 40960) 8"
	echo "$listed" >"/sys/block/$disk/badblocks"
}

shrink() {
	: >"$file"
}
grow() {
	echo more >>"$file"
}
replace() {
	cp /tmp/right "$MNT/new"
	mv "$MNT/new" "$file"
}
rename() {
	mv "$file" "$MNT/renamed"
}
defragment() {
	xfs_fsr "$file" >/dev/null 2>&1 || :
}

need filefrag jq cmp dmsetup setpriv chattr xfs_fsr xfs_io
plan 65
load_driver
disk=$(e820_disk)
nvdimm=$(labelled_disk -m fsdax -M mem)
make_fs xfs "$disk"
mount_dax "$disk"
file=$MNT/file
dd if=/dev/urandom of=/tmp/right bs=4096 count=256 status=none
cp /tmp/right "$file"
sync
listed="$(sector_of "$file" 40960) 8"
echo "$listed" >"/sys/block/$disk/badblocks"

refuses "no regular file" 'no regular file' "$MNT" --zero
refuses "not on persistent memory" 'not on persistent memory\|only files of' /tmp/right --zero
refuses "not there" 'No such file' "$MNT/none" --zero
ln -s "$file" "$MNT/link"
ln -s "$MNT" /tmp/mount
refuses "a symbolic link, where none is wanted" 'has a symbolic link' --no-symlinks "$MNT/link" --zero
refuses "nor above the file" 'has a symbolic link' --no-symlinks /tmp/mount/file --zero
refuses "nor to the backup" 'has a symbolic link' --no-symlinks "$file" --from "$MNT/link"
rm "$MNT/link" /tmp/mount
head -c 1000 /tmp/right >/tmp/short
refuses "a backup of another length" 'it has 1000 bytes' "$file" --from /tmp/short
refuses "even where it is said which range" 'less than the end' "$file" --from /tmp/short --offset 40K --length 4K
refuses "the file itself" 'the file itself' "$file" --from "$file"
refuses "a range that cuts what is bad" 'must be repaired together' "$file" --zero --offset 41000 --length 100
refuses "a range beyond the end" 'there is no range' "$file" --zero --offset 1M --length 4K
cp /tmp/right "$MNT/sparse"
fallocate -p -o 64K -l 64K "$MNT/sparse"
sync
refuses "a range with a hole that is to be overwritten" 'bytes 65536 to 131072 are a hole' "$MNT/sparse" --from /tmp/right --overwrite-good --offset 60K --length 128K
refuses "a range in a hole" 'bytes 69632 to 73728 are a hole' "$MNT/sparse" --from /tmp/right --overwrite-good --offset 68K --length 4K
rm "$MNT/sparse"
for flag in i:immutable a:append-only; do
	chattr "+${flag%:*}" "$file"
	refuses "${flag#*:}" "${flag#*:}" "$file" --from /tmp/right
	chattr "-${flag%:*}" "$file"
done
mount -o remount,ro "$MNT"
refuses "mounted read-only" 'mounted read-only' "$file" --from /tmp/right
mount -o remount,rw "$MNT"
exec 3<"$file"
refuses "open in another process" "open in process $$" "$file" --from /tmp/right
exec 3<&-
pmem-io map "$file" --length 4K run='touch /tmp/mapped; until [ -e /tmp/unmap ]; do sleep 0.1; done' >/dev/null 2>&1 &
reader=$!
wait_for 60 test -e /tmp/mapped
refuses "mapped by another process" "mapped by process $reader (pmem-io)" "$file" --from /tmp/right
touch /tmp/unmap
wait "$reader"
check_fails "not for others than root" setpriv --reuid 65534 pmemctl repair --trust-list "$file" --zero

# ---- a backup that cannot be compared ----

dd if=/dev/urandom of="$MNT/page" bs=4096 count=1 conv=fsync status=none
cp "$MNT/page" /tmp/page
echo "$(sector_of "$MNT/page" 0) 8" >"/sys/block/$disk/badblocks"
whole=$file file=$MNT/page
refuses "no byte of the file can be compared" 'no byte .* can be read and compared' "$file" --from /tmp/page
is "it is repaired with --force" \
	"$(pmemctl repair --trust-list --force --json "$file" --from /tmp/page 2>/dev/null | jq -r '.pieces[].result')" repaired
check "with the bytes of the backup" cmp "$file" /tmp/page
rm "$file"
file=$whole

# ---- blocks that files share ----

cp --reflink=always "$file" "$MNT/copy"
sync
refuses "a backup that shares the bad block" 'shares its blocks' "$file" --from "$MNT/copy"
is "shared: the file moves" "$(pmemctl repair --trust-list --json "$file" --from /tmp/right 2>/dev/null | jq -r '.pieces[].result')" moved
check "shared: it is right" cmp "$file" /tmp/right
check "shared: nothing of it is bad" pmemctl errors "$file"
is "shared: the other's block is still listed" "$(list_badblocks)" "$listed,"
is "shared: the block of the last file is repaired" "$(pmemctl repair --trust-list --json "$MNT/copy" --from "$file" | jq -r '.pieces[].result')" repaired
is_empty "shared: and is not listed any more" list_badblocks
check "shared: it is right, too" cmp "$MNT/copy" /tmp/right
rm "$MNT/copy"

# ---- shared blocks of a file unlike new files of its directory ----

umount "$MNT"
mount -o dax=inode "/dev/$disk" "$MNT"
mkdir "$MNT/plain" "$MNT/dax"
whole=$file file=$MNT/plain/file
cp /tmp/right "$file"
xfs_io -c 'chattr +x' "$MNT/dax"
xfs_io -c 'chattr +x' "$file"
cp --reflink=always "$file" "$MNT/dax/copy"
sync
echo "$(sector_of "$file" 40960) 8" >"/sys/block/$disk/badblocks"
refuses "shared: DAX, in a directory without" "run: chattr +x $MNT/plain" "$file" --from /tmp/right
: >/tmp/bound
mount --bind "$file" /tmp/bound
refuses "shared: mounted on a file" '/tmp is on another file system' /tmp/bound --from /tmp/right
umount /tmp/bound
xfs_io -c 'chattr +x' "$MNT/plain"
is "shared: DAX, in a directory with it, the file moves" "$(pmemctl repair --trust-list --json "$file" --from /tmp/right 2>/dev/null | jq -r '.pieces[].result')" moved
check "shared: DAX, it is right" cmp "$file" /tmp/right
rm -r "$MNT/plain" "$MNT/dax"
umount "$MNT"
mount_dax "$disk"
file=$whole

# ---- changes during the repair ----

echo "0 65536 linear /dev/$nvdimm 0" | dmsetup create backup
dmsetup mknodes
mkfs.ext4 -q -F /dev/mapper/backup
mkdir -p /tmp/backups
mount /dev/mapper/backup /tmp/backups
cp /tmp/right /tmp/backups/backup
sync

make_file
meanwhile "truncated" 'another process waits' shrink
is "truncated: by the other, afterwards" "$(stat -c %s "$file")" 0
make_file
meanwhile "written to" 'another process waits' grow
is "written to: by the other, afterwards" "$(tail -c 5 "$file")" more
make_file
meanwhile "replaced" 'was removed\|another file' replace
check "replaced: the new one is whole" cmp "$file" /tmp/right
make_file
meanwhile "renamed" 'its name' rename
rm "$MNT/renamed"
make_file
meanwhile "defragmented" 'another process waits' defragment
is "repaired, while nobody changes the file" "$(pmemctl repair --trust-list --json "$file" --from /tmp/backups/backup | jq -r '.pieces[].result')" repaired
check "the file is right" cmp "$file" /tmp/right
umount /tmp/backups
dmsetup remove --retry backup

# ---- data in the journal ----

umount "$MNT"
# Those of the files that were replaced: ext4 would write over them at any time.
forget_errors_now "$disk"
make_fs ext4 "$disk"
mount -o data=journal "/dev/$disk" "$MNT"
cp /tmp/right "$file"
sync
# Writes the blocks to their places.
umount "$MNT"
mount -o data=journal "/dev/$disk" "$MNT"
is "journaled data: nothing is bad" "$(pmemctl repair --trust-list --json "$file" --from /tmp/right | jq '.pieces | length')" 0
echo "$(sector_of "$file" 40960) 8" >"/sys/block/$disk/badblocks"
refuses "journaled data" 'its data is journaled' "$file" --from /tmp/right
umount "$MNT"
mount "/dev/$disk" "$MNT"
is "it is repaired without data=journal" "$(pmemctl repair --trust-list --json "$file" --from /tmp/right | jq -r '.pieces[].result')" repaired

# ---- memory whose poison cannot be cleared ----

umount "$MNT"
make_fs ext4 "$nvdimm"
mount_dax "$nvdimm"
cp /tmp/right "$file"
sync
disk=$nvdimm
echo "$(sector_of "$file" 40960) 8" >"/sys/block/$disk/badblocks"
refuse_status=0
pmemctl repair --trust-list "$file" --from /tmp/right >/tmp/refused 2>&1 || refuse_status=$?
sed 's/^/# /' /tmp/refused
is "a bus that can't clear errors: status" $refuse_status 1
check "a bus that can't clear errors: said so" grep -q 'did not clear the poison' /tmp/refused
is "a bus that can't clear errors: still listed" "$(list_badblocks)" "$(sector_of "$file" 40960) 8,"
