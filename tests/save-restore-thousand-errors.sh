#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A thousand errors, more than badblocks can hold, are saved one by one in few writes of the file, and restored.
# vm: --bare --e820 352M@512M
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

# file_has COUNT: the number of saved errors.
file_has() {
	[ "$(jq '.list.errors | length' "$file")" = "$1" ]
}

# list_errors: errors/list in order.
list_errors() {
	cut -d ' ' -f 1,2 "/sys/block/$e820/device/errors/list" | sort -n
}

few_saves() {
	saves=$(grep -c ': saved:' $FOLLOW) && [ "$saves" -lt 200 ]
}

[ "$DRIVER" = rust_pmem ] || skip_all "C leaves out what does not fit"

cleanup() {
	kill "$FOLLOW_PID" 2>/dev/null
	blkdiscard -f -z "/dev/$e820"
	rm -rf $STATE
}

plan 8
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
load_driver
e820=$(e820_disk)
namespace=$(e820_ns)
file=$(state_file e820 "$namespace")
start_follow
seq 1 1000 | while read -r n; do
	echo "add $((n * 65536)) 512" >"/sys/block/$e820/device/errors/list"
done
check "all are saved soon" wait_for 40 file_has 1000
is "each by itself" "$(jq -r '.list.errors[].length' "$file" | sort -u)" 512
check "not with a file for each" few_saves
list_errors >/tmp/listed
is "listed" "$(wc -l </tmp/listed)" 1000
kill "$FOLLOW_PID"
wait "$FOLLOW_PID" || :
# The kernel forgets the errors, the file does not.
blkdiscard -f -z "/dev/$e820"
is_empty "repaired" cat "/sys/block/$e820/device/errors/list"
rebind "$namespace"
e820=$(e820_disk)
is "restored" "$(restore "$e820")" "$e820 restored 1000"
check "as they were" sh -c "cut -d ' ' -f 1,2 /sys/block/$e820/device/errors/list | sort -n | cmp - /tmp/listed"
check_fails "the last of them can't be read" pmem-io pread --direct --offset 65536000 --length 512 "/dev/$e820"
