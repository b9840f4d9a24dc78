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

# make_calls(name, how, calls): see file_io.
make_calls='
import mmap, os, sys

def make_calls(name, how, calls):
    fd = os.open(name, os.O_RDWR | (os.O_DIRECT if "direct" in how else 0) | (os.O_DSYNC if "o_dsync" in how else 0)
                 | (os.O_SYNC if "o_sync" in how else 0))
    buf = mmap.mmap(-1, 65536)
    for call in calls:
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
    os.close(fd)
'

# file_io FILE HOW CALL…: opens FILE (HOW: direct, o_dsync, o_sync, in any combination) and makes these calls at its
# start, with 4 KiB each: read, write:BYTES, dsync:BYTES (RWF_DSYNC), sync:BYTES (RWF_SYNC), fsync, fdatasync, sync
# (sync(2)).
file_io() {
	python3 -c "$make_calls"'make_calls(sys.argv[1], sys.argv[2], sys.argv[3:])' "$@"
}

# count_each NAME FILE [settled]: 1 subtest for each line "ROW|HOW|CALL…" of standard input. Records how often the region was
# flushed while these calls were made, as by file_io, but all by one process: it takes long to start. If settled, all that is
# dirty is written before each row.
count_each() {
	count_name=$1
	shift
	python3 -c "$make_calls"'
import traceback

flushes = "/sys/module/pmem_provider/parameters/flushes"
for line in sys.stdin:
    row, how, calls = line.strip().split("|")
    for _ in range(2 if sys.argv[2:] else 0):
        os.sync()
    with open(flushes, "w") as file:
        file.write("0")
    count = ""
    try:
        make_calls(sys.argv[1], how, calls.split())
        with open(flushes) as file:
            count = file.read().strip()
    except OSError:
        traceback.print_exc()
    print(row, count, sep="|")
' "$@" >/tmp/flushes.counts
	while IFS='|' read -r count_row count_value; do
		record "$count_name: $count_row" "$count_value"
	done </tmp/flushes.counts
}

# counted ROW: what the last count_each has recorded in this row.
counted() {
	sed -n "s/^$1|//p" /tmp/flushes.counts
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
