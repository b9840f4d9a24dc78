#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Errors are saved one by one, a thousand of them in few writes of the file; without space, or read-only, no saved list is lost.
#
# Errors that can't be saved are reported. A repaired error is not listed again. A thousand errors are more than badblocks can hold.
# vm: files
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	kill "${FOLLOW_PID:-}" 2>/dev/null
	umount $STATE 2>/dev/null
	blkdiscard -f -z "/dev/$disk"
	rm -rf $STATE
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

# file_has COUNT: the number of saved errors.
file_has() {
	[ "$(jq '.list.errors | length' "$file")" = "$1" ]
}

# list_errors: errors/list in order.
list_errors() {
	cut -d ' ' -f 1,2 "/sys/block/$disk/device/errors/list" | sort -n
}

few_saves() {
	saves=$(grep -c ': saved:' $FOLLOW) && [ "$saves" -lt 200 ]
}

case $DRIVER in
rust_pmem) plan 25 ;;
*) plan 17 ;;
esac
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
load_driver
namespace=$(e820_ns)
disk=$(raw_disk "$namespace")
file=$(state_file e820 "$namespace")
rm -rf $STATE
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
check "no space: status says that the list is not saved" sh -c \
	"pmemctl status --json | jq -e '.regions[] | select(any(.namespaces[]; .disk == \"$disk\")) | .saved == false'"
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

# ---- a thousand ----

[ "$DRIVER" = rust_pmem ] || exit 0
forget_errors "$disk"
umount $STATE
rmdir $STATE
start_follow
seq 1 1000 | while read -r n; do
	echo "add $((n * 65536)) 512" >"/sys/block/$disk/device/errors/list"
done
check "all are saved soon" wait_for 40 file_has 1000
is "each by itself" "$(jq -r '.list.errors[].length' "$file" | sort -u)" 512
check "not with a file for each" few_saves
list_errors >/tmp/listed
is "listed" "$(wc -l </tmp/listed)" 1000
kill "$FOLLOW_PID"
wait "$FOLLOW_PID" || :
# The kernel forgets the errors, the file does not.
blkdiscard -f -z "/dev/$disk"
is_empty "repaired" cat "/sys/block/$disk/device/errors/list"
rebind "$namespace"
disk=$(e820_disk)
is "restored" "$(restore "$disk")" "$disk restored 1000"
check "as they were" sh -c "cut -d ' ' -f 1,2 /sys/block/$disk/device/errors/list | sort -n | cmp - /tmp/listed"
check_fails "the last of them can't be read" pmem-io pread --direct --offset 65536000 --length 512 "/dev/$disk"
