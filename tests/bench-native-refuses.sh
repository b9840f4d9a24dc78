#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmem-bench native refuses a device in use, a device that is not persistent memory, and a run without consent to
# overwrite.
#
# Consent is an option, or an answer at a terminal.
# vm: three
. "$(dirname "$0")/lib/test.sh"

# bench_error OPTION…: the last line of its output, without a terminal.
bench_error() {
	pmem-bench native --no-files "$@" </dev/null 2>&1 | tail -n 1
}

# bench_typed TEXT OPTION…: runs it at a terminal, and types the text after it has asked.
bench_typed() {
	typed=$1
	shift
	(
		wait_for 60 grep -q 'type "' /tmp/typed
		echo "$typed"
	) | script -qefc "pmem-bench native --no-files --rounds 6 $*" /tmp/typed >/dev/null || {
		cat /tmp/typed
		return 1
	}
}

cleanup() {
	umount "$MNT" 2>/dev/null || :
	dmsetup remove busy 2>/dev/null || :
}

need script dmsetup sha256sum pmem-bench
plan 11
load_driver
disk=$(e820_disk)
dev=/dev/$disk
make_fs ext4 "$disk"
before=$(sha256sum <"$dev")
is "no terminal" "$(bench_error "$dev")" "pmem-bench: nobody can be asked: --yes-overwrite names each device that may be overwritten"
is "another device named" "$(bench_error --yes-overwrite /dev/pmem9 "$dev")" \
	"pmem-bench: nobody can be asked: --yes-overwrite names each device that may be overwritten"
is "no persistent memory" "$(bench_error --yes-overwrite /dev/vda /dev/vda)" "pmem-bench: /dev/vda: this is no disk of persistent memory"
mkdir -p "$MNT"
mount -r "$dev" "$MNT"
is "mounted" "$(bench_error --yes-overwrite "$dev" "$dev")" "pmem-bench: $disk is in use: $disk is mounted at $MNT (ext4)"
umount "$MNT"
tail -f /dev/null <"$dev" &
reader=$!
wait_for 60 grep -qx tail /proc/$reader/comm
is "open" "$(bench_error --yes-overwrite "$dev" "$dev")" "pmem-bench: $disk is in use: process $reader (tail) has $disk open"
kill $reader
wait $reader || :
dmsetup create busy --table "0 100 linear $dev 0"
is "part of another device" "$(bench_error --yes-overwrite "$dev" "$dev" | sed 's/dm-[0-9]*/dm/')" \
	"pmem-bench: $disk is in use: $disk is part of dm (device mapper: busy)"
dmsetup remove busy
: >/tmp/typed
check_fails "something else typed" bench_typed yes "$dev"
check "it said so" grep -q "nothing was done" /tmp/typed
is "nothing was changed" "$(sha256sum <"$dev")" "$before"
: >/tmp/typed
check "its name typed" bench_typed "$disk" "$dev"
check "and it is measured" grep -q "read-4k .*$DRIVER" /tmp/typed
