#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A flush in the middle of a bio does not let the provider's allocation start I/O, which would wait for that bio to be submitted.
# vm: --bare --append memmap=128M$512M --cpus 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	provider_cleanup
}

# io_flags: for a task as usual, and for one that may start no I/O (PR_SET_IO_FLUSHER), whether it has that flag
# (PF_MEMALLOC_NOIO) after an fsync.
io_flags() {
	python3 - "/dev/$DISK" <<-END
		import ctypes, os, sys
		disk = os.open(sys.argv[1], os.O_RDWR)
		for flusher in 0, 1:
		    ctypes.CDLL(None).prctl(57, flusher, 0, 0, 0)
		    os.fsync(disk)
		    print(int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[6]) >> 19 & 1)
	END
}

need python3
plan 4
provide flush_async=1
provider flushes 0
check "fsync" dd if=/dev/zero of="/dev/$DISK" bs=4k count=1 oflag=direct conv=notrunc,fsync status=none
check "flushes" test "$(provider flushes)" -gt 0
is "of a bio, with I/O" "$(provider submitting)" 0
is "afterwards a task may start I/O as before" "$(io_flags | xargs)" "0 1"
