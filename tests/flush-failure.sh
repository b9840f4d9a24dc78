#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A flush that fails makes the fsync that needed it fail, and nothing else.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 6
provide pages=1
pattern aaaaaaa 8 >/tmp/data
provider flush_fails 1
check_fails "fsync" sh -c "dd if=/tmp/data of=/dev/$DISK bs=4k oflag=direct conv=fsync"
check "a plain write" dd if=/tmp/data of="/dev/$DISK" bs=4k oflag=direct
check "a read" read_sectors "$DISK" 0 8
provider flush_fails 0
check "fsync, once flushes work again" dd if=/tmp/data of="/dev/$DISK" bs=4k oflag=direct conv=fsync
provider flush_fails 1
dmesg -C
provider_cleanup
check_fails "the driver goes all the same" test -d "/sys/module/$DRIVER"
if [ "$DRIVER" = rust_pmem ]; then
	check "and logs that its last flush failed" sh -c "dmesg | grep -q 'the last flush failed'"
else
	skip "and logs that its last flush failed" "C ignores that"
fi
