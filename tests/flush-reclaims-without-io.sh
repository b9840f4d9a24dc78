#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A flush in the middle of a bio does not let the provider's allocation start I/O, which would wait for that bio to be submitted.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	provider_cleanup
}

need python3
plan 4
provide flush_async=1
provider flushes 0
check "fsync" dd if=/dev/zero of="/dev/$DISK" bs=4k count=1 oflag=direct conv=notrunc,fsync status=none
check "flushes" test "$(provider flushes)" -gt 0
is "of a bio, with I/O" "$(provider submitting)" 0
# PF_MEMALLOC_NOIO
is "afterwards a task may start I/O as before" "$(flag_after_fsync 19 0) $(flag_after_fsync 19 1)" "0 1"
