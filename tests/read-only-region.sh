#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A region that cannot persist is read-only and so is its disk, which follows the region's read_only file while bound.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	exec 5>&-
	provider_cleanup
}
plan 10
provide unarmed=1
region=${NAMESPACE#namespace}
read_only=$ND/region${region%.*}/read_only
is "the region" "$(cat "$read_only")" 1
is "the disk" "$(cat "/sys/block/$DISK/ro")" 1
check_fails "a write" write_sectors "$DISK" 0 8 </dev/zero
check "a read" read_sectors "$DISK" 0 8
check_fails "a new file system" sh -c "mkfs.ext4 -q -b 4096 /dev/$DISK"

echo 0 >"$read_only"
is "writable at once" "$(cat "/sys/block/$DISK/ro")" 0
check "a write now" write_sectors "$DISK" 0 8 </dev/zero
exec 5>"/dev/$DISK"
echo 1 >"$read_only"
is "and back" "$(cat "/sys/block/$DISK/ro")" 1
check_fails "for who had it open as well" sh -c "dd if=/dev/zero bs=4k count=1 conv=fsync >&5"
exec 5>&-
rebind "$NAMESPACE"
is "after a rebind, the region's switch decides" "$(cat "/sys/block/$DISK/ro")" 1
