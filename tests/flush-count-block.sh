#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Each kind of block I/O flushes the region the recorded number of times, in raw, fsdax and sector mode.
#
# Also where the platform needs no flush (no FUA).
# compare
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/flush-count.sh"

need python3

# test_counts NAME DISK: 15 subtests. Keeps the disk open, because the last close would write back the page cache.
test_counts() {
	exec 5<"/dev/$2"
	record "$1: write cache and FUA" "$(cat "/sys/block/$2/queue/write_cache" "/sys/block/$2/queue/fua")"
	record "$1: a direct read" "$(count_flushes file_io "/dev/$2" direct read)"
	record "$1: a direct write of 4 KiB" "$(count_flushes file_io "/dev/$2" direct write:4096)"
	record "$1: a direct write of 64 KiB" "$(count_flushes file_io "/dev/$2" direct write:65536)"
	record "$1: fsync alone" "$(count_flushes file_io "/dev/$2" direct fsync)"
	record "$1: a direct write and fsync" "$(count_flushes file_io "/dev/$2" direct write:4096 fsync)"
	record "$1: a direct write and fdatasync" "$(count_flushes file_io "/dev/$2" direct write:4096 fdatasync)"
	record "$1: a direct write with RWF_DSYNC" "$(count_flushes file_io "/dev/$2" direct dsync:4096)"
	record "$1: a direct write with O_DSYNC" "$(count_flushes file_io "/dev/$2" direct,o_dsync write:4096)"
	record "$1: a direct write with O_SYNC" "$(count_flushes file_io "/dev/$2" direct,o_sync write:4096)"
	record "$1: a write by the page cache" "$(count_flushes file_io "/dev/$2" cached write:4096)"
	record "$1: and sync(2)" "$(count_flushes file_io "/dev/$2" cached sync)"
	record "$1: a write by the page cache and fsync" "$(count_flushes file_io "/dev/$2" cached write:65536 fsync)"
	record "$1: zeroing 64 KiB" "$(count_flushes blkdiscard -f -z -o 0 -l 65536 "/dev/$2")"
	record "$1: BLKFLSBUF" "$(count_flushes blockdev --flushbufs "/dev/$2")"
	exec 5<&-
}

plan 64
provide pages=1
test_counts raw "$DISK"
echo 'write through' >"/sys/block/$DISK/queue/write_cache"
record "queue/write_cache says write through: fsync" "$(count_flushes file_io "/dev/$DISK" direct write:4096 fsync)"
record "queue/write_cache says write through: RWF_DSYNC" "$(count_flushes file_io "/dev/$DISK" direct dsync:4096)"
echo 'write back' >"/sys/block/$DISK/queue/write_cache"
is "queue/write_cache says write back again: fsync" "$(count_flushes file_io "/dev/$DISK" direct write:4096 fsync)" 1
test_counts fsdax "$(make_fsdax "$NAMESPACE")"
# Writes of 4 KiB: in sector mode each block takes 4 flushes: data, two of the log, the map.
provider_cleanup
provide pages=1 dimm=0
test_counts "raw, no flush known" "$DISK"
is "region says nothing of flushes" "$(cat "$ND/region"*/deep_flush 2>&1 | grep -c 'No such file')" 1
test_counts sector "$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)"
