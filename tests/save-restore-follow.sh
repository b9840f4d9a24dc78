#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl errors save --follow finds new disks, restores and saves their errors, and drops repaired ones.
#
# It ends on SIGTERM with the last change saved.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	kill "$FOLLOW_PID" 2>/dev/null
	rm -rf $STATE
	pmem-io fill --direct --length 4M "/dev/$e820"
}

# file_has OFFSETS: the saved errors of the e820 memory.
file_has() {
	[ "$(jq -r '.list.errors[].offset' "$file" | sort -n | xargs)" = "$1" ]
}

plan 13
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
load_driver
e820=$(e820_disk)
namespace=$(e820_ns)
file=$(state_file e820 "$namespace")
echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/unbind"
start_follow
check "no errors, no file" test ! -e "$file"
echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/bind"
e820=$(e820_disk)
sleep 1
echo "2048 8" >"/sys/block/$e820/badblocks"
check "a disk that came: saved soon" wait_for 40 test -s "$file"
check "as listed" file_has 1048576
echo "4096 8" >"/sys/block/$e820/badblocks"
check "one more" wait_for 40 file_has "1048576 2097152"
pmem-io fill --direct --offset 1M --length 4K "/dev/$e820"
check "one repaired" wait_for 40 file_has 2097152
echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/unbind"
sleep 1
check "a disk that went: what is saved stays" file_has 2097152
echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/bind"
e820=$(e820_disk)
check "it comes again: it is on the list" wait_for 40 grep -qx '4096 8' "/sys/block/$e820/badblocks"
is "a line for each change" "$(grep -c "^$e820: saved: .*\(new\|repaired\)" $FOLLOW)" 3

# is_idle SECONDS: it has logged nothing and used no time of a processor.
is_idle() {
	idle_before=$(wc -l <$FOLLOW; cut -d ' ' -f 14,15 "/proc/$FOLLOW_PID/stat")
	sleep "$1"
	[ "$(wc -l <$FOLLOW; cut -d ' ' -f 14,15 "/proc/$FOLLOW_PID/stat")" = "$idle_before" ]
}
check "where nothing happens it comes to rest" wait_for 20 is_idle 1
check "and sleeps" is_idle 3
echo "6144 8" >"/sys/block/$e820/badblocks"
kill -TERM "$FOLLOW_PID"
status=0
wait "$FOLLOW_PID" || status=$?
is "SIGTERM: status" "$status" 0
check "with the last change saved" file_has "2097152 3145728"
sed 's/^/# /' $FOLLOW

# Other programs of the user have all instances of inotify.
instances=$(cat /proc/sys/fs/inotify/max_user_instances)
echo 0 >/proc/sys/fs/inotify/max_user_instances
start_follow
pmem-io fill --direct --offset 2M --length 4K "/dev/$e820"
check "without inotify: one repaired" wait_for 40 file_has 3145728
echo "$instances" >/proc/sys/fs/inotify/max_user_instances
sed 's/^/# /' $FOLLOW
