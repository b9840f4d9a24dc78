#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A flush whose task gets no memory, because the OOM killer has chosen it, is made all the same: others wait for it.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	provider_cleanup
}

# write_durably FLAG OF dd: writes a block by a task that gets no memory for a flush.
write_durably() {
	provider flush_out_of_memory 1
	write_status=0
	dd if=/dev/zero of="/dev/$DISK" bs=4k count=1 conv=notrunc status=none "$@" || write_status=$?
	provider flush_out_of_memory 0
	return $write_status
}

need python3
plan 5
provide flush_async=1
provider flushes 0
check "fsync" write_durably oflag=direct conv=notrunc,fsync
check "flushes" test "$(provider flushes)" -gt 0
check "a durable write" write_durably oflag=direct,dsync
provider flush_out_of_memory 1
# PF_MEMALLOC
is "a task may not use the reserves afterwards" "$(flag_after_fsync 11 0)" 0
provider flush_out_of_memory 0
provider flush_fails 1
check_fails "a flush that fails" write_durably oflag=direct conv=notrunc,fsync
provider flush_fails 0
