#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl explain says why an address of a process gets SIGBUS: a bad block, truncation, a hole, a page of RAM.
#
# With the process, and after it has ended; on ext4 and XFS.
# vm: files
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"
. "$(dirname "$0")/lib/sigbus.sh"

cleanup() {
	touch /tmp/sigbus.done
	wait_for 60 umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	wipefs -aq "/dev/$disk"
	unload_driver
}

# address_of NAME OFFSET: the address of that byte behind the start of the first mapping with the name.
address_of() {
	start=$(awk -v name="$1" 'index($0, name) { split($1, at, "-"); print at[1]; exit }' "/proc/$map_pid/maps")
	printf '0x%x\n' $((0x$start + $2))
}

# map_and_fail FILE: starts a process that maps the file, and whose third page then fails.
map_and_fail() {
	rm -f /tmp/sigbus.*
	pmem-io map --length 64K "$1" load poison=8K+4K run="touch /tmp/sigbus.ready; until [ -e /tmp/sigbus.done ]; do sleep 0.05; done" &
	map_pid=$!
	wait_for 60 test -e /tmp/sigbus.ready
}

# explain ARGUMENT…: the exit status and the cause; the object is in /tmp/explain.json.
explain() {
	explain_status=0
	pmemctl explain --json "$@" >/tmp/explain.json 2>/tmp/explain.err || explain_status=$?
	sed 's/^/# /' /tmp/explain.err >&2
	echo "$explain_status $(jq -r .cause /tmp/explain.json)"
}

need jq filefrag setpriv
plan 27
load_driver
disk=$(e820_disk)
for type in ext4 xfs; do
	make_fs $type "$disk"
	mount_dax "$disk"
	file="$MNT/a file"
	fallocate -l 4M "$file"
	pmem-io fill "$file"
	map_start --length 4M "$file"
	at=$(address_of "a file" 1048676)
	is "$type: good memory" "$(explain --pid "$map_pid" --addr "$at")" '0 not-listed'
	echo "$(sector_of "$file" 1048576) 8" >"/sys/block/$disk/badblocks"
	is "$type: a bad block" "$(explain --pid "$map_pid" --addr "$at")" '1 bad-block'
	[ $type = xfs ] || check_schema explain /tmp/explain.json
	is "$type: its place" "$(jq -r '"\(.file.path) \(.file.dax) \(.file_offset) \(.disk) \(.sector)"' /tmp/explain.json)" \
		"$file true 1048676 $disk $(sector_of "$file" 1048676)"
	is "$type: a command to repair it" "$(jq -r '.actions[1]' /tmp/explain.json)" \
		"pmemctl repair --dry-run --from BACKUP '$file'"
	next=$(address_of "a file" 1060864)
	is "$type: another page" "$(explain --pid "$map_pid" --addr "$next")" '0 not-listed'
	is "$type: another page of the same 2 MiB" "$(explain --pid "$map_pid" --addr "$next" --lsb 21)" '1 bad-block'
	cp "/proc/$map_pid/maps" /tmp/saved.maps
	map_stop
	is "$type: the process has ended" "$(explain --pid "$map_pid" --addr "$at")" '4 '
	is "$type: by its saved mappings" "$(explain --maps /tmp/saved.maps --addr "$at")" '1 bad-block'
	umount "$MNT"
	forget_errors_now "$disk"
	mount_dax "$disk"

	fallocate -l 4M "$MNT/cut"
	map_start --length 4M "$MNT/cut"
	truncate -s 5000 "$MNT/cut"
	is "$type: a truncated file" "$(explain --pid "$map_pid" --addr "$(address_of /cut 8192)")" '0 beyond-end'
	map_stop
	truncate -s 4M "$MNT/sparse"
	map_start --read-only --length 4M "$MNT/sparse"
	is "$type: a hole" "$(explain --pid "$map_pid" --addr "$(address_of /sparse 8192)")" '0 hole'
	if [ $type = xfs ]; then
		is "the stack" "$(explain --pid "$map_pid" --addr "$(address_of '[stack]' 0)")" '0 not-listed'
		is "an address that is not mapped" "$(explain --pid "$map_pid" --addr 0x1000)" '4 '
		check_fails "not for others than root" setpriv --reuid 65534 pmemctl explain --pid "$map_pid" \
			--addr "$(address_of '[stack]' 0)"
	fi
	map_stop
	umount "$MNT"
done

# ---- ordinary memory ----

mount -o dax=never "/dev/$disk" "$MNT"
map_start --length 4M "$file"
echo "$(sector_of "$file" 1048576) 8" >"/sys/block/$disk/badblocks"
explain --pid "$map_pid" --addr "$(address_of "a file" 1048576)" >/tmp/explain.out
is "a file that is not DAX" "$(cat /tmp/explain.out) $(jq .file.dax /tmp/explain.json)" '1 bad-block false'
map_stop
umount "$MNT"
forget_errors_now "$disk"
make_fs xfs "$disk"
mount -o dax=never "/dev/$disk" "$MNT"
# One that is not written back yet has no block, and its data is lost. The kernel reads the other one again.
for name in written new; do
	head -c 64K /dev/urandom >"$MNT/$name"
	[ $name = new ] || sync
	map_and_fail "$MNT/$name"
	explain --pid "$map_pid" --addr "$(address_of /$name 8192)" >/tmp/explain.out
	case $name in
	written) is "a page of the page cache that failed" "$(cat /tmp/explain.out)" '0 not-listed' ;;
	new) is "one that has no block yet" "$(cat /tmp/explain.out)" '1 poisoned-page' ;;
	esac
	map_stop
done
