#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After a power cut of the host, all that was durable on virtio-pmem when fsync returned is there: raw, ext4 and XFS on DAX.
#
# Eight processes increment a counter in a page of their own, make it durable, and then write it to an NVDIMM, whose stores
# are never lost. The host loses its page cache at the cut, in random pages, except what a flush has made durable.
# vm: --bare --virtio-pmem size=32M,volatile-cache --virtio-pmem size=64M,volatile-cache --virtio-pmem size=304M,volatile-cache --nvdimm size=16M --cpus 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fs.sh"

WRITERS=8

# disk_with MIB: the name of the disk of this size. A namespace on virtio-pmem is as large as its region.
disk_with() {
	for size in /sys/block/pmem*/size; do
		[ "$(cat "$size")" != $(($1 << 11)) ] || basename "$(dirname "$size")"
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

# count_up PLACE FILE WAY…: starts the processes, which take the ways in turn.
count_up() {
	place=$1 file=$2
	shift 2
	for writer in $(seq 0 $((WRITERS - 1))); do
		python3 /tmp/count.py $((slot + writer)) "/dev/$NVDIMM" "$1" "$file" 2>/tmp/errors &
		set -- "$@" "$1"
		shift
	done
	slot=$((slot + WRITERS))
}

# acknowledged SLOT: the last counter that was durable.
acknowledged() {
	od -An -t u8 -j $(($1 * 512)) -N 8 "/dev/$NVDIMM" | tr -d ' '
}

# is_there NAME FILE WAY…: each counter is at least as high as acknowledged.
is_there() {
	name=$1 file=$2 lost='' total=0
	shift 2
	for writer in $(seq 0 $((WRITERS - 1))); do
		promised=$(acknowledged $((slot + writer)))
		total=$((total + promised))
		if [ "$1" = create ]; then
			for count in $(seq "$promised"); do
				found=$(od -An -t u8 -N 8 "$file.$((slot + writer)).$count" 2>&1 | tr -d ' ')
				[ "$found" = "$count" ] || lost="$lost file $count of $writer: $found;"
			done
		else
			found=$(od -An -t u8 -j $(((slot + writer) * 4096)) -N 8 "$file" | tr -d ' ')
			[ "$found" -ge "$promised" ] || lost="$lost $1 $writer: $found of $promised;"
		fi
		set -- "$@" "$1"
		shift
	done
	slot=$((slot + WRITERS))
	echo "# $name: $total acknowledged"
	is "$name: nothing acknowledged is lost" "$lost" ""
	check "$name: something was acknowledged by each process on average" test "$total" -ge $WRITERS
}

need python3
modprobe -a ext4 xfs
load_driver
NVDIMM=$(disk_with 16)
RAW=$(disk_with 32) EXT4=$(disk_with 64) XFS=$(disk_with 304)
slot=0
case $STAGE in
1)
	plan 1
	mkdir -p /tmp/ext4 /tmp/xfs
	make_fs ext4 "$EXT4"
	make_fs xfs "$XFS"
	mount -o dax "/dev/$EXT4" /tmp/ext4
	mount -o dax "/dev/$XFS" /tmp/xfs
	for place in ext4 xfs; do
		fallocate -l 1M /tmp/$place/counters
	done
	sync
	count_up raw "/dev/$RAW" fsync dsync
	count_up ext4 /tmp/ext4/counters fsync dsync msync create
	count_up xfs /tmp/xfs/counters fsync dsync msync create
	# shellcheck disable=SC2016 # for sh
	check "all processes have counted" wait_for 120 sh -c "[ \$(od -An -v -w512 -t u8 -N $((slot * 512)) /dev/$NVDIMM | awk '\$1 > 2' | wc -l) = $slot ]"
	sleep "$(awk 'BEGIN { srand(); print 2 + 2 * rand() }')"
	host powercut
	;;
2)
	plan 8
	mkdir -p /tmp/ext4 /tmp/xfs
	check "ext4 recovers" mount -o dax "/dev/$EXT4" /tmp/ext4
	check "XFS recovers" mount -o dax "/dev/$XFS" /tmp/xfs
	is_there raw "/dev/$RAW" fsync dsync
	is_there ext4 /tmp/ext4/counters fsync dsync msync create
	is_there XFS /tmp/xfs/counters fsync dsync msync create
	umount /tmp/ext4 /tmp/xfs
	;;
esac
