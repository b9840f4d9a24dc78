#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A flush gets its memory without I/O, and from the reserves if its task gets none: others wait for it.
#
# In the middle of a bio, I/O to reclaim memory would wait for that bio to be submitted. A task gets no memory when the OOM
# killer has chosen it.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# write_block FLAG OF dd…: writes a block.
write_block() {
	dd if=/dev/zero of="/dev/$DISK" bs=4k count=1 conv=notrunc status=none "$@"
}

# write_durably FLAG OF dd…: writes a block by a task that gets no memory for a flush.
write_durably() {
	provider flush_out_of_memory 1
	write_status=0
	write_block "$@" || write_status=$?
	provider flush_out_of_memory 0
	return $write_status
}

need python3
plan 9
provide flush_async=1

# ---- without I/O ----

provider flushes 0
check "fsync" write_block oflag=direct conv=notrunc,fsync
check "flushes" test "$(provider flushes)" -gt 0
is "of a bio, with I/O" "$(provider submitting)" 0
# PF_MEMALLOC_NOIO
is "afterwards a task may start I/O as before" "$(flag_after_fsync 19 0) $(flag_after_fsync 19 1)" "0 1"

# ---- without memory ----

provider flushes 0
check "without memory: fsync" write_durably oflag=direct conv=notrunc,fsync
check "without memory: flushes" test "$(provider flushes)" -gt 0
check "a durable write" write_durably oflag=direct,dsync
provider flush_out_of_memory 1
# PF_MEMALLOC
is "a task may not use the reserves afterwards" "$(flag_after_fsync 11 0)" 0
provider flush_out_of_memory 0
provider flush_fails 1
check_fails "a flush that fails" write_durably oflag=direct conv=notrunc,fsync
provider flush_fails 0
