#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl errors save --follow finds new disks, restores and saves their errors, and drops repaired ones.
#
# It ends on SIGTERM with the last change saved. Errors that the platform logs come back by themselves and are not saved; errors
# listed by hand are saved.
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	kill "$FOLLOW_PID" 2>/dev/null
	provider_cleanup
	rm -rf $STATE
}

# file_has OFFSETS: the saved errors.
file_has() {
	[ "$(jq -r '.list.errors[].offset' "$file" | sort -n | xargs)" = "$1" ]
}

# is_idle SECONDS: it has logged nothing and used no time of a processor.
is_idle() {
	idle_before=$(wc -l <$FOLLOW; cut -d ' ' -f 14,15 "/proc/$FOLLOW_PID/stat")
	sleep "$1"
	[ "$(wc -l <$FOLLOW; cut -d ' ' -f 14,15 "/proc/$FOLLOW_PID/stat")" = "$idle_before" ]
}

# unbind, bind: the driver, from the disk and to it.
unbind() {
	echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
}

bind() {
	echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
	DISK=$(disk_of "$NAMESPACE")
}

save() {
	pmemctl errors save --all --json >/tmp/save.json
}

# saved_offsets: saves, and prints the offsets in the file.
saved_offsets() {
	save
	jq -r '.list.errors[].offset' $STATE/*.json >/tmp/offsets
	sort -n /tmp/offsets | xargs
}

plan 22
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
rm -rf $STATE
provide
file=$(state_file pmem-provider "$NAMESPACE")

# ---- without a log ----

unbind
start_follow
check "no errors, no file" test ! -e "$file"
bind
sleep 1
echo "2048 8" >"/sys/block/$DISK/badblocks"
check "a disk that came: saved soon" wait_for 40 test -s "$file"
check "as listed" file_has 1048576
echo "4096 8" >"/sys/block/$DISK/badblocks"
check "one more" wait_for 40 file_has "1048576 2097152"
pmem-io fill --direct --offset 1M --length 4K "/dev/$DISK"
check "one repaired" wait_for 40 file_has 2097152
unbind
sleep 1
check "a disk that went: what is saved stays" file_has 2097152
bind
check "it comes again: it is on the list" wait_for 40 grep -qx '4096 8' "/sys/block/$DISK/badblocks"
is "a line for each change" "$(grep -c "^$DISK: saved: .*\(new\|repaired\)" $FOLLOW)" 3

check "where nothing happens it comes to rest" wait_for 20 is_idle 1
check "and sleeps" is_idle 3
echo "6144 8" >"/sys/block/$DISK/badblocks"
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
pmem-io fill --direct --offset 2M --length 4K "/dev/$DISK"
check "without inotify: one repaired" wait_for 40 file_has 3145728
echo "$instances" >/proc/sys/fs/inotify/max_user_instances
sed 's/^/# /' $FOLLOW
kill "$FOLLOW_PID"
wait "$FOLLOW_PID" || :

# ---- with a log ----

provider_cleanup
rm -rf $STATE
provide scrub=1 bad=1M+4K
is "the log's error is listed" "$(badblocks_of "$DISK")" '2048+8'
save
is_empty "and not saved" find $STATE -name '*.json'
is "which is said" "$(jq -r '.reports[].has_log' /tmp/save.json)" true
echo "8192 8" >"/sys/block/$DISK/badblocks"
is "another is, that was written to the list" "$(saved_offsets)" 4194304
provider_cleanup
provide scrub=1 bad=1M+4K
is "a new platform knows its own" "$(badblocks_of "$DISK")" '2048+8'
is "the other is restored" "$(restore "$DISK")" "$DISK restored 8"
is "both are listed" "$(badblocks_of "$DISK")" '2048+8 8192+8'
provider bad 4M+4K
is "what the log learns of later stays saved" "$(saved_offsets)" 4194304
provider_cleanup
provide bad=1M+4K
rm -r $STATE
is "without a log, all is saved" "$(saved_offsets)" 1048576
