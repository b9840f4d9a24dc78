#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# SIGKILL at any system call of pmemctl repair leaves each page as it was or repaired, and the next repair succeeds.
#
# A page that is not repaired stays listed. A file that ends within its last page may be longer, by zeroes, and has to be cut.
# A page that another file of XFS shares moves to a new block.
# vm: --bare --e820 352M@512M
# timeout: 400
. "$(dirname "$0")/lib/test.sh"

# The pages of the file that get bad: the last one is not whole.
SIZE=40000 BAD='4 9'

cleanup() {
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	rm -f /tmp/right /tmp/backup /tmp/seen
}

# clear_copy: removes the other file, after its blocks are good again.
clear_copy() {
	[ -e "$MNT/copy" ] || return 0
	dd if=/dev/zero of="$MNT/copy" bs=40960 count=1 conv=notrunc status=none
	sync -f "$MNT"
	rm "$MNT/copy"
}

# make_bad: makes the pages bad. Their contents are not the backup's any more. With $shared, another file has them as well.
make_bad() {
	clear_copy
	dd if=/tmp/right of="$file" bs=$SIZE conv=notrunc status=none
	truncate -s $SIZE "$file"
	for page in $BAD; do
		printf x | dd of="$file" bs=1 seek=$((page * 4096 + 10)) conv=notrunc status=none
	done
	[ -z "$shared" ] || cp --reflink=always "$file" "$MNT/copy"
	sync -f "$MNT"
	for page in $BAD; do
		echo "$(sector_of "$file" $((page * 4096))) 8" >"/sys/block/$disk/badblocks"
	done
}

# repair [COMMAND…]: repairs the file, under the command.
repair() {
	"$@" pmemctl repair --trust-list --force "$file" --from /tmp/backup >/tmp/output 2>&1
}

# is_listed SECTOR: it is bad, alone or with its neighbours.
is_listed() {
	awk -v at="$1" '$1 <= at && at < $1 + $2 { found = 1 } END { exit !found }' "/sys/block/$disk/badblocks"
}

# check_state: each page is listed, or is that of the backup.
check_state() {
	rm -f /tmp/seen
	# It fails because of the bad pages, and goes on behind them.
	dd if="$file" of=/tmp/seen bs=4096 conv=noerror,sync status=none 2>/dev/null
	[ "$(stat -c %s /tmp/seen)" -ge $SIZE ] || {
		echo "the file is too short"
		return 1
	}
	for page in $(cmp -l /tmp/seen /tmp/right 2>/dev/null | awk '{ print int(($1 - 1) / 4096) }' | uniq); do
		is_listed "$(sector_of "$file" $((page * 4096)))" || {
			echo "page $page, at sector $(sector_of "$file" $((page * 4096))), is wrong, and not listed:"
			cat "/sys/block/$disk/badblocks"
			return 1
		}
	done
	tail -c +$((SIZE + 1)) /tmp/seen | tr -d '\0' | cmp - /dev/null
}

# kill_at_each CALL: kills it at the first, second … such call, until it has no more of them.
kill_at_each() {
	number=0 killed=1
	until [ $killed = 0 ]; do
		number=$((number + 1)) killed=0
		make_bad
		repair strace -f -qq -o /dev/null -e trace="$1" -e inject="$1:signal=KILL:when=$number" || killed=$?
		case $killed in
		0 | 137) ;;
		*)
			echo "at call $number it was not killed, but failed (status $killed):"
			cat /tmp/output
			return 1
			;;
		esac
		check_state || return
		[ "$(stat -c %s "$file")" = $SIZE ] || truncate -s $SIZE "$file"
		repair || {
			echo "after SIGKILL at call $number (status $killed):"
			cat /tmp/output
			return 1
		}
		cmp /tmp/right "$file" || return
		pmemctl errors "$file" || return
		[ -n "$shared" ] || cmp "/sys/block/$disk/badblocks" /dev/null || return
	done
	echo "killed $((number - 1)) times"
	[ $number -gt 1 ]
}

need strace
plan 6
load_driver
disk=$(e820_disk)
dd if=/dev/urandom of=/tmp/right bs=$SIZE count=1 status=none
cp /tmp/right /tmp/backup
for type in ext4 xfs; do
	wipefs -aq "/dev/$disk"
	make_fs $type "$disk"
	mount_dax "$disk"
	file=$MNT/file shared=
	for call in pwrite64 ftruncate; do
		check "$type: killed at each $call" kill_at_each $call
	done
	[ $type = ext4 ] || for call in pwrite64 ioctl; do
		shared=1
		check "$type: shared blocks: killed at each $call" kill_at_each $call
	done
	clear_copy
	umount "$MNT"
done
