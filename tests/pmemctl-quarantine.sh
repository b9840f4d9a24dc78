#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl quarantine keeps free bad blocks from new files, without a write to them, until they are released.
#
# On ext4 and XFS: it can be repeated, has limits, and refuses a file that is not its own.
# vm: files
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"

cleanup() {
	pmemctl quarantine --release "$MNT" 2>/dev/null
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	wipefs -aq "/dev/$disk"
	unload_driver
}

# run ARGUMENT…: the exit status and the numbers.
run() {
	run_status=0
	pmemctl quarantine --json "$@" "$MNT" >/tmp/quarantine.json 2>/tmp/quarantine.err || run_status=$?
	sed 's/^/# /' /tmp/quarantine.err >&2
	echo "$run_status $(jq -r '"\(.quarantined) \(.free) \(.in_use) \(.released)"' /tmp/quarantine.json)"
}

list_badblocks() {
	tr '\n' , <"/sys/block/$disk/badblocks"
}

# owner_of SECTOR: the kind of its owner.
owner_of() {
	pmemctl errors --json "$MNT" 2>/dev/null | jq -r ".errors[] | select(.disk_offset == $(($1 * 512))) | .owner.kind"
}

is_free() {
	[ "$(owner_of "$1")" = free ]
}

need jq filefrag strace
plan 33
load_driver
disk=$(e820_disk)
for type in ext4 xfs; do
	make_fs $type "$disk"
	mount_dax "$disk"
	quarantine=$MNT/.pmemctl-quarantine
	dd if=/dev/urandom of="$MNT/file" bs=1M count=1 conv=fsync status=none
	fallocate -l 32M "$MNT/gone"
	sector=$(sector_of "$MNT/gone" 16777216)
	rm "$MNT/gone"
	sync
	echo "$sector 1" >"/sys/block/$disk/badblocks"
	echo "$(sector_of "$MNT/file" 4096) 8" >"/sys/block/$disk/badblocks"
	before=$(list_badblocks)
	check "$type: a bad block is free" wait_for 60 is_free "$sector"

	is "$type: no time" "$(run --time 0)" '1 0 4096 4096 0'
	check "$type: no time: no file is left" test ! -e "$quarantine"
	is "$type: no space" "$(run --keep-free 100G)" '1 0 4096 4096 0'
	is "$type: the free bad block is taken" "$(run --keep-free 1M)" '0 4096 0 4096 0'
	[ $type = xfs ] || check_schema quarantine /tmp/quarantine.json
	is "$type: for root alone, and no longer than the block" "$(stat -c '%a %u %s' "$quarantine")" '600 0 4096'
	check_fails "$type: it can't be removed" rm -f "$quarantine"
	pmemctl errors --json "$MNT" >/tmp/errors.json || :
	is "$type: pmemctl errors shows it" "$(jq -r '.errors[] | select(.quarantined) | .owner.paths[0]' /tmp/errors.json)" \
		"$quarantine"
	pmemctl status >/tmp/status.out || :
	check "$type: pmemctl status shows it" grep -q "4K quarantined in $quarantine" /tmp/status.out
	is "$type: again" "$(run --keep-free 1M)" '0 4096 0 4096 0'
	dd if=/dev/zero of="$MNT/full" bs=1M 2>/tmp/full.err || :
	sync
	is "$type: nothing is written to it, though all space is" \
		"$(grep -c 'No space left' /tmp/full.err) $(list_badblocks)" "1 $before"
	rm "$MNT/full"
	mount -o remount,ro "$MNT"
	check_fails "$type: not on a read-only mount" pmemctl quarantine "$MNT"
	mount -o remount,rw "$MNT"
	is "$type: released" "$(run --release) $(test -e "$quarantine" && echo there)" '0 0 4096 0 4096 '
	echo data >"$quarantine"
	check_fails "$type: another file of that name is refused" pmemctl quarantine "$MNT"
	is "$type: and not changed" "$(cat "$quarantine")" data
	rm "$quarantine"

	# As the owner of the directory can do it, before the file is immutable.
	sync
	wait_for 60 is_free "$sector"
	strace -qq -o /dev/null -e trace=fsync -e inject=fsync:delay_enter=6000000 \
		pmemctl quarantine --keep-free 1M "$MNT" >/tmp/removed 2>&1 &
	tracer=$!
	wait_for 60 test -e "$quarantine"
	rm "$quarantine"
	status=0
	wait "$tracer" || status=$?
	is "$type: removed meanwhile" "$status $(grep -c 'another process removed it' /tmp/removed)" '1 1'
	umount "$MNT"
	forget_errors_now "$disk"
done
