#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl errors names the affected file and offset, or other owner, of a bad block on mounted ext4 and XFS.
#
# Other owners: free space, the journal, an inode table. Through partitions and volumes.
# expect-splat: at __xfs_healthmon_insert+
# vm: labels
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"
. "$(dirname "$0")/lib/monitor.sh"

cleanup() {
	exec 3<&-
	[ -z "${MONITOR_PID:-}" ] || stop_monitor
	clean_up_volumes "$disk"
}

# owner_of SECTOR OF THE VOLUME [FIELD]: makes the sector bad; prints its owner.
owner_of() {
	echo "$(($1 + volume_start)) 1" >"/sys/block/$disk/badblocks"
	pmemctl errors --json "/dev/$disk" 2>/dev/null | jq -r ".errors[] | select(.offset == $(($1 * 512))) | ${2:-.owner.kind}"
	echo "$(($1 + volume_start)) 1" >>/tmp/bad_list
}

# clone_often FILE FOLDER: clones the first block of a file (FICLONERANGE), 150 times into each of 20 files. Of those in the same file,
# XFS with a reverse map reports about 128 (patches/0016).
clone_often() {
	mkdir "$2"
	# shellcheck disable=SC2016 # for perl
	perl -e 'open(my $from, "<", $ARGV[0]);
		for my $file (1 .. 20) {
			open(my $to, ">", "$ARGV[1]/$file");
			ioctl($to, 0x4020940d, pack("q4", fileno($from), 0, 4096, 4096 * $_)) || die "$!\n" for 0 .. 149;
		}' "$1" "$2"
}

need fsfreeze sfdisk dmsetup filefrag debugfs xfs_io setfattr perl
plan 49
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 448M)

# ---- ext4, in a partition ----

printf 'start=2M,size=128M\nstart=130M\n' | sfdisk -q "/dev/$disk"
wait_for 60 test -b "/dev/${disk}p2"
volume_start=4096
make_fs ext4 "${disk}p1"
mount_dax "${disk}p1"
mkdir -p "$MNT/a folder/b"
file="$MNT/a folder/b/c
d"
dd if=/dev/urandom of="$file" bs=1M count=4 conv=fsync status=none
ln "$file" "$MNT/link"
: >"$MNT/other"
sync
sector=$(sector_of "$file")

check "the file is not affected: status 0" pmemctl errors "$file"
is "a file" "$(owner_of $((sector + 2048)))" file
pmemctl errors --json "/dev/$disk" >/tmp/errors.json || :
is "with its offset" "$(jq '.errors[0].owner.file_offset' /tmp/errors.json)" 1048576
is "and its physical address" "$(jq -c '[.errors[0] | .physical_address - .disk_offset]' /tmp/errors.json)" \
	"[$(($(cat "$ND/$(device_of_disk "$disk")/resource")))]"
check_schema errors /tmp/errors.json
is "and a name, of which nothing is lost" "$(pmemctl errors --json "/dev/$disk" | jq -r '.errors[0].owner.paths[0]' | grep -cF -e 'a folder/b/c\nd' -e /link)" 1
is "all of its names" "$(pmemctl errors --links --json "/dev/$disk" | jq '.errors[0].owner.paths | length')" 2
is "by its mount" "$(pmemctl errors --json "$MNT" | jq -r '.errors[0] | "\(.volume) \(.file_system)"')" "${disk}p1 ext4"
is "of a disk with another name" "$(pmemctl errors "$(e820_ns)" 2>&1)" 'pmemctl: no errors are listed'
status=0
pmemctl errors "$file" >/tmp/output || status=$?
is "the file is affected: status 1" $status 1
check "at its place" grep -q "4K *1M\$\|512 *${disk}p1 .* 1M\$" /tmp/output
check "another file is not" pmemctl errors "$MNT/other"
status=0
pmemctl errors "$MNT/none" 2>/tmp/output || status=$?
is "a file that is not there: status 4" $status 4
is "free space" "$(owner_of $((125 * 2048)))" free
exec 3<"$MNT/link"
removed=$(stat -c %i "$MNT/link")
rm "$MNT/link" "$file"
is "a file that was removed while it is open" \
	"$(pmemctl errors --json "$MNT" | jq -r ".errors[] | select(.offset == $(((sector + 2048) * 512))) | \"\(.owner.inode) \(.owner.open_by | index($$) != null)\"")" "$removed true"
exec 3<&-
# The kernel does not report the block of a file that has attributes in its inode as well.
(cd "$MNT" && seq 300 | xargs touch && setfattr -n user.b -v "$(printf '%03000d' 0)" ./*9)
: >"$MNT/both"
setfattr -n user.b -v "$(printf '%03000d' 1)" "$MNT/both"
setfattr -n user.a -v x "$MNT/both"
sync
acl() {
	debugfs -R "stat $1" "/dev/${disk}p1" 2>/dev/null | sed -n 's/.*File ACL: \([0-9]*\).*/\1/p'
}
is "all files with the same attributes" "$(owner_of $((8 * $(acl 9))) '.owner.paths[0]' | sort -u | wc -l)" 30
is "attributes beside others in the inode" "$(owner_of $((8 * $(acl both))) '.owner.paths[0]')" "$MNT/both"
is "also as the file says itself" "$(pmemctl errors --json "$MNT/both" | jq -c '[.errors[].owner.file_offset]')" '[null]'
mkdir -p /tmp/second
mount --bind "$MNT" /tmp/second
mount -t tmpfs above "$MNT"
is "a mount that is covered" "$(pmemctl errors --json "/dev/$disk" | jq -r '.errors[].owner.paths[0]? // empty | select(endswith("/both"))')" /tmp/second/both
umount "$MNT" /tmp/second
# The last block of the first one: none of these inodes is used, which the search would skip.
inode_table=$(dumpe2fs "/dev/${disk}p1" 2>/dev/null | sed -n 's/.*Inode table at [0-9]*-\([0-9]*\).*/\1/p' | head -n 1)
is "the inode table" "$(owner_of $((inode_table * 8)) .owner.what)" 'inode table'
journal=$(debugfs -R 'blocks <8>' "/dev/${disk}p1" 2>/dev/null | awk '{ print $2 }')
is "the journal" "$(owner_of $((journal * 8)) .owner.what)" journal
is "a directory" "$(owner_of $((8 * $(debugfs -R "blocks \"/a folder\"" "/dev/${disk}p1" 2>/dev/null | awk '{ print $1 }'))) '.owner.paths[0]')" "$MNT/a folder"
is "with its group" "$(pmemctl errors --json "$MNT" | jq -c '[.errors[].owner | select(.what == "inode table").group]')" '[0]'
umount "$MNT"
is "between the partitions" "$(volume_start=0 owner_of 100 .reason)" 'outside of all partitions and volumes'
forget_errors_now "$disk"

# ---- XFS, on a volume of two extents ----

# Without reverse mapping, XFS does not distinguish its metadata from files.
for options in '' '-m rmapbt=0'; do
	wipefs -aq "/dev/$disk"
	printf '0 131072 linear /dev/%s 262144\n131072 491520 linear /dev/%s 393216\n' "$disk" "$disk" | dmsetup create two
	dmsetup mknodes
	volume=$(basename "$(readlink "/sys/dev/block/$(dmsetup info -c --noheadings -o major,minor --separator : two)")")
	volume_start=262144
	# shellcheck disable=SC2086 # several words
	make_fs xfs "$volume" $options
	mount_dax "$volume"
	mkdir "$MNT/folder" "$MNT/many"
	for name in $(seq 100); do : >"$MNT/many/a long name, so that the inode has no room for all of them $name"; done
	dd if=/dev/urandom of="$MNT/folder/file" bs=1M count=4 conv=fsync status=none
	cp --reflink=never "$MNT/folder/file" "$MNT/other"
	setfattr -n user.x -v "$(printf '%03000d' 0)" "$MNT/folder/file"
	sync
	sector=$(sector_of "$MNT/folder/file")
	is "XFS $options: a file, through the volume" \
		"$(owner_of $((sector + 8)) '"\(.volume) \(.owner.paths[0]) \(.owner.file_offset)"')" "two $MNT/folder/file 4096"
	is "XFS $options: the superblock" "$(owner_of 0 '"\(.owner.what) \(.owner.group)"')" 'superblock 0'
	is "XFS $options: a superblock of another group" \
		"$(owner_of "$(($(xfs_io -r -c 'statfs' "$MNT" | sed -n 's/^geom.agblocks = //p') * 8))" '"\(.owner.what) \(.owner.group)"')" 'superblock 1'
	is "XFS $options: a directory" "$(owner_of "$(xfs_io -r -c bmap "$MNT/many" | sed -n 's/.*: \([0-9]*\)\.\..*/\1/p' | head -n 1)" '.owner.paths[0]')" "$MNT/many"
	is "XFS $options: free space" "$(owner_of $((300 * 2048)))" free
	is "XFS $options: as the file says itself" "$(pmemctl errors --json "$MNT/folder/file" | jq -c '[.errors[].owner.file_offset]')" '[4096]'
	attribute=$(xfs_io -r -c 'bmap -a' "$MNT/folder/file" | sed -n 's/.*: \([0-9]*\)\.\..*/\1/p' | head -n 1)
	is "XFS $options: extended attributes of a file" "$(owner_of "$attribute" '.owner.paths[0]')" "$MNT/folder/file"
	is "XFS $options: also as the file says itself" "$(pmemctl errors --json "$MNT/folder/file" | jq -c '[.errors[].owner.file_offset]')" '[4096,null]'
	head -c 4K /dev/urandom >"$MNT/shared"
	sync "$MNT/shared"
	clone_often "$MNT/shared" "$MNT/clones"
	is "XFS $options: a block that files share in many places" "$(owner_of "$(sector_of "$MNT/shared")" .owner.inode | wc -l)" 1024
	is "XFS $options: it says that there are more" "$(pmemctl errors "/dev/$disk" 2>&1 >/dev/null | sed -n "s|^pmemctl: $MNT: ||p")" \
		"files share a bad block in so many places that not all are listed"
	start_monitor --now "$MNT"
	wait_for 40 grep -q '"event":"failed"' $EVENTS || :
	stop_monitor
	is "XFS $options: the monitor as well" "$(jq -r 'select(.event == "failed") | .reason' $EVENTS)" \
		"$MNT: files share a bad block in so many places that not all are listed"
	umount "$MNT"
	dmsetup remove --retry two
	forget_errors_now "$disk"
done

# ---- XFS with a header that can't be read ----

wipefs -aq "/dev/$disk"
make_fs xfs "$disk" -s size=4096
mount_dax "$disk"
dd if=/dev/urandom of="$MNT/file" bs=1M count=4 conv=fsync status=none
sector=$(sector_of "$MNT/file")
blocks=$(xfs_io -r -c 'statfs' "$MNT" | sed -n 's/^geom.agblocks = //p')
# What is in the log is written, and not kept.
fsfreeze --freeze "$MNT"
fsfreeze --unfreeze "$MNT"
# The second sector of the other group, and a block in the middle of it.
group=$((1 - sector / (blocks * 8)))
for bad in "$sector 1" "$((group * blocks * 8 + 8)) 8" "$((group * blocks * 8 + blocks * 4)) 1"; do
	echo "$bad" >"/sys/block/$disk/badblocks"
done
for _ in $(seq 10); do echo 2 >/proc/sys/vm/drop_caches; done
is "a file of another group is found" "$(pmemctl errors --json "/dev/$disk" 2>/tmp/output | jq -r '.errors[].owner.paths[0]? // empty')" "$MNT/file"
check "the failure is said" grep -q "^pmemctl: $MNT: Input/output error" /tmp/output
umount "$MNT"
forget_errors_now "$disk"

echo "0 8192 zero" | dmsetup create zero
dmsetup mknodes
status=0
pmemctl errors /dev/mapper/zero >/dev/null 2>&1 || status=$?
is "what is on no disk: status 4" "$status" 4
