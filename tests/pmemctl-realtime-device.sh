#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl finds the errors of an XFS on its real-time and log devices, and those of real-time files.
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/sigbus.sh"

cleanup() {
	touch /tmp/sigbus.done
	umount "$MNT" 2>/dev/null
	for disk in $data $realtime $log; do
		forget_errors "$disk"
		wipefs -aq "/dev/$disk"
	done
	rm -f /tmp/pmemctl-realtime-device.json
	unload_driver
}

# make_disk SIZE: the disk of a new namespace.
make_disk() {
	make_namespace -r "$(labelled_region)" -m fsdax -M mem -s "$1" >/tmp/pmemctl-realtime-device.json
	jq -r .blockdev /tmp/pmemctl-realtime-device.json
}

# errors TARGET: the exit status, and the disk and offset of each error in KiB.
errors() {
	errors_status=0
	pmemctl errors --json "$1" >/tmp/errors.json 2>/tmp/errors.err || errors_status=$?
	sed 's/^/# /' /tmp/errors.err >&2
	echo "$errors_status" "$(jq -r '.errors[] | "\(.disk)@\(.disk_offset / 1024)"' /tmp/errors.json | sort | xargs)"
}

need xfs_io jq
plan 14
load_driver
data=$(labelled_disk -m fsdax -M mem -s 320M)
realtime=$(make_disk 64M)
log=$(make_disk 80M)
modprobe xfs
mkfs.xfs -q -f -m reflink=0,rmapbt=0 -r "rtdev=/dev/$realtime,extsize=64k" -l "logdev=/dev/$log" "/dev/$data"
check "mounted with DAX on data and real-time device" mount_dax "$data" "rtdev=/dev/$realtime,logdev=/dev/$log"
xfs_io -f -c "chattr +r" -c "falloc 0 1M" "$MNT/realtime"
pmem-io fill "$MNT/realtime"
fallocate -l 1M "$MNT/plain"
pmem-io fill "$MNT/plain"
sync
sector=$(xfs_io -r -c 'bmap -n 1' "$MNT/realtime" | sed -n 's/.*: \([0-9]*\)\.\..*/\1/p' | tail -n 1)
is "nothing is bad" "$(errors "$MNT")" "0 "

# It reads each page before one is bad.
map_start --read-only --length 1M "$MNT/realtime"
start=$(awk '/realtime$/ { split($1, at, "-"); print at[1]; exit }' "/proc/$map_pid/maps")

echo "$((sector + 8)) 8" >"/sys/block/$realtime/badblocks"
bad=$realtime@$(((sector + 8) / 2))
is "a real-time file is affected" "$(errors "$MNT/realtime")" "1 $bad"
is "at its offset" "$(jq '.errors[0].owner.file_offset' /tmp/errors.json)" 4096
is "the other file is not" "$(errors "$MNT/plain")" "0 "
is "the mount is" "$(errors "$MNT")" "1 $bad"
check "the owner is said to be unknown" sh -c "jq -r '.errors[0].reason' /tmp/errors.json | grep -q 'the real-time device of $MNT'"

explained=0
pmemctl explain --json --pid "$map_pid" --addr "$(printf '0x%x' $((0x$start + 5000)))" >/tmp/explain.json || explained=$?
is "a SIGBUS at it is explained" "$explained $(jq -r '"\(.cause) \(.disk) \(.sector)"' /tmp/explain.json)" \
	"1 bad-block $realtime $((sector + 9))"
map_stop

# A block of inodes, on the data device.
echo "$((sector + 136)) 8" >"/sys/block/$data/badblocks"
inodes=$data@$(((sector + 136) / 2))
is "the same sector of the data device is none of it" "$(errors "$MNT/realtime")" "1 $bad"
is "and is listed for the mount" "$(errors "$MNT")" "1 $(printf '%s\n' "$inodes" "$bad" | sort | xargs)"
check "with an owner that is not the real-time file" sh -c "! grep -q '$MNT/realtime' /tmp/errors.json"
echo "1024 8" >"/sys/block/$log/badblocks"
is "the log is affected, and so is the mount" "$(errors "$MNT")" "1 $(printf '%s\n' "$inodes" "$bad" "$log@512" | sort | xargs)"
is "no file is" "$(errors "$MNT/plain")" "0 "
umount "$MNT"
for disk in $data $realtime $log; do forget_errors_now "$disk"; done
mount_dax "$data" "rtdev=/dev/$realtime,logdev=/dev/$log"
is "nothing is bad any more" "$(errors "$MNT")" "0 "
