#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Whichever system call SIGKILL ends pmemctl repair at, each page is as it was or repaired, and the next repair ends well.
#
# A page that is not repaired stays listed. A file that ends within its last page may be longer, by zeroes, and has to be cut.
# vm: --bare --e820 352M@512M
# timeout: 240
. "$(dirname "$0")/lib/test.sh"

# The pages of the file that get bad: the last one is not whole.
SIZE=40000 BAD='4 9'

cleanup() {
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	rm -f /tmp/right /tmp/backup /tmp/seen
}

# make_bad: makes the pages bad. Their contents are not the backup's any more.
make_bad() {
	dd if=/tmp/right of="$file" bs=$SIZE conv=notrunc status=none
	truncate -s $SIZE "$file"
	for page in $BAD; do
		printf x | dd of="$file" bs=1 seek=$((page * 4096 + 10)) conv=notrunc status=none
	done
	sync -f "$MNT"
	first=$(sector_of "$file")
	for page in $BAD; do
		echo "$((first + page * 8)) 8" >"/sys/block/$disk/badblocks"
	done
}

# repair [COMMAND…]: repairs the file, under the command.
repair() {
	"$@" pmemctl repair --trust-list --force "$file" --from /tmp/backup >/tmp/output 2>&1
}

# check_state: each page is listed, or is that of the backup.
check_state() {
	dd if="$file" of=/tmp/seen bs=4096 conv=noerror,sync status=none 2>/dev/null
	for page in $(cmp -l /tmp/seen /tmp/right 2>/dev/null | awk '{ print int(($1 - 1) / 4096) }' | uniq); do
		grep -q "^$((first + page * 8)) " "/sys/block/$disk/badblocks" || {
			echo "page $page is not listed, and wrong"
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
		check_state || return
		[ "$(stat -c %s "$file")" = $SIZE ] || truncate -s $SIZE "$file"
		repair || {
			echo "after SIGKILL at call $number (status $killed):"
			cat /tmp/output
			return 1
		}
		cmp /tmp/right "$file" || return
		[ -z "$(cat "/sys/block/$disk/badblocks")" ] || return
	done
	echo "killed $((number - 1)) times"
	[ $number -gt 1 ]
}

need strace
plan 4
load_driver
disk=$(e820_disk)
dd if=/dev/urandom of=/tmp/right bs=$SIZE count=1 status=none
cp /tmp/right /tmp/backup
for type in ext4 xfs; do
	wipefs -aq "/dev/$disk"
	make_fs $type "$disk"
	mount_dax "$disk"
	file=$MNT/file
	for call in pwrite64 ftruncate; do
		check "$type: killed at each $call" kill_at_each $call
	done
	umount "$MNT"
done
