#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After a power cut of the host, writes that were durable on virtio-pmem are there: on the raw disk, ext4 and XFS with DAX.
#
# Eight processes increment a counter in a page of their own, make it durable, and then write it to an NVDIMM, whose stores
# are never lost. The host loses its page cache at the cut, in random pages, except data that a flush has made durable.
# timeout: 300
# vm: volatile 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fs.sh"

WRITERS=8

# disk_with MIB: the name of the disk of virtio-pmem of this size. A namespace there is as large as its region.
disk_with() {
	for namespace in $(namespaces virtio-pmem); do
		[ "$(cat "$ND/$namespace/size")" != $(($1 << 20)) ] || disk_of "$namespace"
	done
}

# Arguments: the place of the counter in the NVDIMM, the disk of the NVDIMM, how to make it durable, and the file.
cat >/tmp/count.py <<'END'
import mmap, os, sys

slot, acknowledged, way, path = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
acknowledge = os.open(acknowledged, os.O_RDWR | os.O_DIRECT)
sector = mmap.mmap(-1, 4096)
files = way == "create"
if not files:
    data = os.open(path, os.O_RDWR | (os.O_DSYNC if way == "dsync" else 0))
    if way == "msync":
        page = mmap.mmap(data, 4096, offset=slot * 4096)
count = 0
while True:
    count += 1
    value = count.to_bytes(8, "little")
    if files:
        new = os.open(f"{path}.{slot}.{count}", os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(new, value, 0)
        os.fsync(new)
        os.close(new)
    elif way == "msync":
        page[:8] = value
        page.flush()
    else:
        os.pwrite(data, value, slot * 4096)
        if way == "fsync":
            os.fsync(data)
    sector[:8] = value
    os.pwritev(acknowledge, [memoryview(sector)[:512]], slot * 512)
END

# count_up FILE WAY…: starts the processes, which take the ways in turn; adds them to PIDS.
count_up() {
	file=$1
	shift
	for writer in $(seq "$slot" $((slot + WRITERS - 1))); do
		python3 /tmp/count.py "$writer" "/dev/$NVDIMM" "$1" "$file" 2>"/tmp/errors.$writer" &
		PIDS="$PIDS $!"
		set -- "$@" "$1"
		shift
	done
	slot=$((slot + WRITERS))
}

# counters: the counters that were acknowledged, on one line.
counters() {
	od -An -v -w512 -t u8 -N $((slot * 512)) "/dev/$NVDIMM" | awk '{ printf "%s ", $1 }'
}

# have_grown OLD MORE: each counter is now higher than it was, by MORE at least.
have_grown() {
	counters | awk -v old="$1" -v more="$2" '{ split(old, was); for (i = 1; i <= NF; i++) if ($i < was[i] + more) exit 1; seen = 1 } END { exit !seen }'
}

# Arguments: the number of the first slot, the disk of the NVDIMM, a file, and the ways of its processes. Prints the lost writes,
# and the sum of the counters.
cat >/tmp/lost.py <<'END'
import os, sys

first, acknowledged, path, ways = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
notes = os.open(acknowledged, os.O_RDONLY)
total = 0
for writer in range(8):
    slot, way = first + writer, ways[writer % len(ways)]
    promised = int.from_bytes(os.pread(notes, 8, slot * 512), "little")
    total += promised
    if way == "create":
        for count in range(1, promised + 1):
            name = f"{path}.{slot}.{count}"
            found = open(name, "rb").read() if os.path.exists(name) else None
            if found != count.to_bytes(8, "little"):
                print(f"# {name}: {found}")
    else:
        found = int.from_bytes(os.pread(os.open(path, os.O_RDONLY), 8, slot * 4096), "little")
        if found < promised:
            print(f"# {path}, {way} {writer}: {found} of {promised}")
print(total)
END

# lost_writes: the first of them. The last line is the sum.
lost_writes() {
	sed -n '$d; 1,20p' /tmp/lost
}

# check_counters NAME FILE WAY…: 1 subtest.
check_counters() {
	name=$1
	shift
	python3 /tmp/lost.py $slot "/dev/$NVDIMM" "$@" >/tmp/lost
	acknowledged=$(tail -n 1 /tmp/lost)
	echo "# $name: $acknowledged writes were acknowledged"
	# The first stage waits for three of each.
	[ "$acknowledged" -ge $((3 * WRITERS)) ] || sed -i "1i only $acknowledged are on the NVDIMM" /tmp/lost
	is_empty "$name: no acknowledged write is lost" lost_writes
	slot=$((slot + WRITERS))
}

need python3
modprobe -a ext4 xfs
load_driver
NVDIMM=$(plain_disk)
RAW=$(disk_with 32) EXT4=$(disk_with 96) XFS=$(disk_with 304)
slot=0
case $STAGE in
1)
	plan 3
	# No counters of another test.
	for disk in "$NVDIMM" "$RAW"; do
		blkdiscard -f -z -l 1M "/dev/$disk"
		sync "/dev/$disk"
	done
	mkdir -p /tmp/ext4 /tmp/xfs
	make_fs ext4 "$EXT4"
	make_fs xfs "$XFS"
	mount -o dax "/dev/$EXT4" /tmp/ext4
	mount -o dax "/dev/$XFS" /tmp/xfs
	for place in ext4 xfs; do
		fallocate -l 1M /tmp/$place/counters
	done
	sync
	PIDS=
	count_up "/dev/$RAW" fsync dsync
	count_up /tmp/ext4/counters fsync dsync msync create
	count_up /tmp/xfs/counters fsync dsync msync create
	deadline=$(($(date +%s) + 400))
	until have_grown "" 2 || [ "$(date +%s)" -ge $deadline ]; do
		sleep 1
	done
	check "all processes write" have_grown "" 2
	before=$(counters)
	sleep "$(awk 'BEGIN { srand(); print 4 + 2 * rand() }')"
	check "and go on" wait_for 120 have_grown "$before" 1
	# shellcheck disable=SC2086 # process ids
	check "without an error" kill -0 $PIDS
	cat /tmp/errors.*
	host powercut
	;;
2)
	plan 5
	mkdir -p /tmp/ext4 /tmp/xfs
	check "ext4 recovers" mount -o dax "/dev/$EXT4" /tmp/ext4
	check "XFS recovers" mount -o dax "/dev/$XFS" /tmp/xfs
	check_counters raw "/dev/$RAW" fsync dsync
	check_counters ext4 /tmp/ext4/counters fsync dsync msync create
	check_counters XFS /tmp/xfs/counters fsync dsync msync create
	umount /tmp/ext4 /tmp/xfs
	;;
esac
