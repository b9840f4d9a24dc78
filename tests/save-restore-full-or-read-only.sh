#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A file system without space, or read-only, below the saved lists loses no list, and errors that cannot be saved are reported;
# a repaired error is not listed again.
# vm: --bare --e820 352M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	umount $STATE
	blkdiscard -f -z "/dev/$disk"
}

# save_errors: its status; its output is in /tmp/output.
save_errors() {
	save_status=0
	pmemctl errors save "$disk" >/tmp/output 2>&1 || save_status=$?
	echo $save_status
}

# list_saved: the offsets in the file.
list_saved() {
	jq -r '.list.errors[].offset' "$file" | xargs
}

plan 17
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
load_driver
namespace=$(e820_ns)
disk=$(e820_disk)
file=$(state_file e820 "$namespace")
mkdir -p $STATE
mount -t tmpfs -o size=64k,mode=700 tmpfs $STATE
echo "8192 8" >"/sys/block/$disk/badblocks"
is "an error is saved" "$(save_errors)" 0
cp "$file" /tmp/before

# ---- no space ----

cat /dev/zero >$STATE/full 2>/dev/null || :
echo "16384 8" >"/sys/block/$disk/badblocks"
is "no space: status 1" "$(save_errors)" 1
check "no space: said so" grep -q 'No space left on device' /tmp/output
check "no space: the saved list is as it was" cmp "$file" /tmp/before
is "no space: nothing is left behind" "$(find $STATE -type f ! -name .lock | sort | xargs)" "$(printf '%s\n' "$file" $STATE/full | sort | xargs)"
check "no space: status says that the list is not saved" sh -c "pmemctl status --json | jq -e '.regions[] | .saved == false'"
rm $STATE/full
is "space again: saved" "$(save_errors)" 0
is "space again: both" "$(list_saved)" '4194304 8388608'

# ---- read-only ----

mount -o remount,ro $STATE
echo "24576 8" >"/sys/block/$disk/badblocks"
is "read-only: status 1" "$(save_errors)" 1
check "read-only: said so" grep -q 'Read-only file system' /tmp/output
is "read-only: the saved list is as it was" "$(list_saved)" '4194304 8388608'
forget_errors "$disk"
rebind "$namespace"
disk=$(e820_disk)
is "read-only: restored" "$(restore "$disk")" "$disk restored 16"
is "read-only: listed" "$(cut -d ' ' -f 1 "/sys/block/$disk/badblocks" | xargs)" '8192 16384'
if [ "$DRIVER" = rust_pmem ]; then
	echo "drop $((8192 * 512)) 4096" >"/sys/bus/nd/devices/$namespace/errors/list"
	is "read-only, without one: status 1" "$(save_errors)" 1
	is "read-only, without one: not listed again" "$(cut -d ' ' -f 1 "/sys/block/$disk/badblocks" | xargs)" 16384
else
	skip "read-only, without one: status 1" "no error leaves the list of nd_pmem here"
	skip "read-only, without one: not listed again" "no error leaves the list of nd_pmem here"
fi
mount -o remount,rw $STATE
is "writable again: saved" "$(save_errors)" 0
if [ "$DRIVER" = rust_pmem ]; then
	is "writable again: without that one" "$(list_saved)" 8388608
else
	skip "writable again: without that one" "no error leaves the list of nd_pmem here"
fi
