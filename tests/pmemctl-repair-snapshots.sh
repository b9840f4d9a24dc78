#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair refuses a file on the origin of a snapshot, which a write over a bad block makes invalid.
# vm: files
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

SECTORS=131072

cleanup() {
	clean_up_volumes "$disk"
}

# repair_status [ARGUMENT…]
repair_status() {
	repair_status=0
	pmemctl repair --trust-list "$@" "$file" --from /tmp/right >/tmp/output 2>&1 || repair_status=$?
	sed 's/^/# /' /tmp/output >&2
	echo $repair_status
}

# snapshot_state: "valid" or "Invalid".
snapshot_state() {
	dmsetup status snapshot | awk '{ print $4 ~ "/" ? "valid" : $4 }'
}

need dmsetup filefrag cmp wipefs
modprobe dm-mod
modprobe dm-snapshot
plan 10
load_driver
disk=$(e820_disk)
mkdir -p "$MNT"
dm_create real "0 $SECTORS linear /dev/$disk 0"
dm_create copies "0 $SECTORS linear /dev/$disk $SECTORS"
dm_create origin "0 $SECTORS snapshot-origin /dev/mapper/real"
mkfs.ext4 -q -F -b 4096 /dev/mapper/origin
mount /dev/mapper/origin "$MNT"
file=$MNT/file
dd if=/dev/urandom of=/tmp/right bs=4096 count=256 status=none
cp /tmp/right "$file"
sync
dmsetup suspend origin
dm_create snapshot "0 $SECTORS snapshot /dev/mapper/real /dev/mapper/copies N 8"
dmsetup resume origin
is "nothing is bad: nothing is refused" "$(repair_status)" 0

listed="$(sector_of "$file" 40960) 8"
echo 3 >/proc/sys/vm/drop_caches
echo "$listed" >"/sys/block/$disk/badblocks"
is "a dry run says so" "$(repair_status --dry-run) $(grep -c 'makes snapshots of its volume invalid: snapshot;' /tmp/output)" "1 1"
is "refused" "$(repair_status) $(grep -c 'makes snapshots of its volume invalid: snapshot;' /tmp/output)" "1 1"
is "the page is still listed" "$(cat "/sys/block/$disk/badblocks")" "$listed"
is "the snapshot is valid" "$(snapshot_state)" valid
is "repaired at the cost of the snapshot" "$(repair_status --invalidate-snapshots)" 0
is_empty "nothing is listed" cat "/sys/block/$disk/badblocks"
check "the file is right" cmp "$file" /tmp/right
is "the snapshot is invalid" "$(snapshot_state)" Invalid
dm_remove snapshot
echo "$listed" >"/sys/block/$disk/badblocks"
is "without a snapshot it is repaired" "$(repair_status)" 0
