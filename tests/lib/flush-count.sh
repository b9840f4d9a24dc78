# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that count flushes; count_flushes needs the provider:
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/provider.sh"
#	. "$(dirname "$0")/lib/flush-count.sh"

# count_flushes COMMAND…: runs the command, which must succeed, and prints how often the region was flushed.
count_flushes() {
	provider flushes 0
	"$@" >/tmp/flushes.out 2>&1 || {
		cat /tmp/flushes.out >&2
		return 1
	}
	provider flushes
}

# virtio_flushes DEVICE: the number of flush requests that this virtio device has completed, by its interrupts.
virtio_flushes() {
	awk '/ '"$1"'(-|,|$)/ { n += $2 + $3 } END { print n + 0 }' /proc/interrupts
}

# file_io FILE HOW CALL…: opens FILE (HOW: direct, o_dsync, o_sync, in any combination) and makes these calls at its
# start, with 4 KiB each: read, write:BYTES, dsync:BYTES (RWF_DSYNC), sync:BYTES (RWF_SYNC), fsync, fdatasync, sync
# (sync(2)).

file_io() {
	python3 - "$@" <<'END'
import mmap, os, sys

name, how, *rest = sys.argv[1:]
fd = os.open(name, os.O_RDWR | (os.O_DIRECT if "direct" in how else 0) | (os.O_DSYNC if "o_dsync" in how else 0)
             | (os.O_SYNC if "o_sync" in how else 0))
buf = mmap.mmap(-1, 65536)
for call in rest:
    if call == "fsync":
        os.fsync(fd)
    elif call == "fdatasync":
        os.fdatasync(fd)
    elif call == "read":
        os.preadv(fd, [buf], 0)
    elif call == "sync":
        os.sync()
    else:
        kind, size = call.split(":")
        buf[:] = os.urandom(len(buf))
        flags = {"write": 0, "dsync": os.RWF_DSYNC, "sync": os.RWF_SYNC}[kind]
        os.pwritev(fd, [memoryview(buf)[:int(size)]], 0, flags)
END
}

# record_durability NAME DISK REGION: 2 subtests: the sysfs attributes that concern durability.
record_durability() {
	record "$1: region" "$(cd "$ND/$3" && for file in persistence_domain deep_flush mappings read_only; do
		[ ! -e $file ] || echo "$file $(stat -c %a $file) $(cat $file)"
	done)"
	record "$1: disk" "$(cd "/sys/block/$2" && for file in queue/write_cache queue/fua queue/dax dax/write_cache; do
		[ ! -e $file ] || echo "$file $(stat -c %a $file) $(cat $file)"
	done)"
}
