# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the tests of durability share; counting flushes takes the provider.
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/provider.sh"
#	. "$(dirname "$0")/lib/flush-count.sh"

# flushes COMMAND…: how often the region is flushed by it. It must succeed.
flushes() {
	provider flushes 0
	"$@" >/tmp/flushes.out 2>&1 || {
		cat /tmp/flushes.out
		return 1
	}
	provider flushes
}

# io FILE HOW CALL…: opens FILE (HOW: direct, o_dsync, o_sync, in any combination) and makes these calls at its start, in 4 KiB: read,
# write:BYTES, dsync:BYTES (RWF_DSYNC), sync:BYTES (RWF_SYNC), fsync, fdatasync, sync (of everything).

io() {
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

# says NAME DISK REGION: 2 subtests: what these have in sysfs of durability.
says() {
	seen "$1: region" "$(cd "$ND/$3" && for file in persistence_domain deep_flush mappings read_only; do
		[ ! -e $file ] || echo "$file $(stat -c %a $file) $(cat $file)"
	done)"
	seen "$1: disk" "$(cd "/sys/block/$2" && for file in queue/write_cache queue/fua queue/dax dax/write_cache; do
		[ ! -e $file ] || echo "$file $(stat -c %a $file) $(cat $file)"
	done)"
}

# region_with NAMESPACE: the name of its region.
region_with() {
	basename "$(readlink -f "$ND/$1/..")"
}
