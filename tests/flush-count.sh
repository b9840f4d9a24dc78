#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Each kind of I/O to a disk, and to files of ext4 and XFS, flushes the region as often as recorded; reads and plain writes do not.
#
# In raw, fsdax and sector mode, with and without DAX, also where the platform needs no flush (no FUA). dax/write_cache only decides
# whether a file system writes back CPU caches for DAX: it changes neither the queue's attributes, nor the number of flushes, nor
# any data.
# compare
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/flush-count.sh"

need python3 mkfs.xfs

# ---- disks ----

# test_disk NAME DISK: 15 subtests. Keeps the disk open, because the last close would write back the page cache.
test_disk() {
	exec 5<"/dev/$2"
	record "$1: write cache and FUA" "$(cat "/sys/block/$2/queue/write_cache" "/sys/block/$2/queue/fua")"
	count_each "$1" "/dev/$2" <<-END
		a direct read|direct|read
		a direct write of 4 KiB|direct|write:4096
		a direct write of 64 KiB|direct|write:65536
		fsync alone|direct|fsync
		a direct write and fsync|direct|write:4096 fsync
		a direct write and fdatasync|direct|write:4096 fdatasync
		a direct write with RWF_DSYNC|direct|dsync:4096
		a direct write with O_DSYNC|direct,o_dsync|write:4096
		a direct write with O_SYNC|direct,o_sync|write:4096
		a write by the page cache|cached|write:4096
		and sync(2)|cached|sync
		a write by the page cache and fsync|cached|write:65536 fsync
	END
	record "$1: zeroing 64 KiB" "$(count_flushes blkdiscard -f -z -o 0 -l 65536 "/dev/$2")"
	record "$1: BLKFLSBUF" "$(count_flushes blockdev --flushbufs "/dev/$2")"
	exec 5<&-
}

# test_queue: 3 subtests.
test_queue() {
	echo 'write through' >"/sys/block/$DISK/queue/write_cache"
	count_each "queue/write_cache says write through" "/dev/$DISK" <<-END
		fsync|direct|write:4096 fsync
		RWF_DSYNC|direct|dsync:4096
	END
	echo 'write back' >"/sys/block/$DISK/queue/write_cache"
	is "queue/write_cache says write back again: fsync" "$(count_flushes file_io "/dev/$DISK" direct write:4096 fsync)" 1
}

# ---- dax/write_cache ----

# test_cache_disk VALUE: 4 subtests.
test_cache_disk() {
	echo "$1" >"/sys/block/$DISK/dax/write_cache"
	is "$1: read back" "$(cat "/sys/block/$DISK/dax/write_cache")" "$1"
	is "$1: the queue" "$(cat "/sys/block/$DISK/queue/write_cache" "/sys/block/$DISK/queue/fua" | tr '\n' ' ')" "write back 1 "
	count_each "$1" "/dev/$DISK" <<-END
		a direct write and fsync of the disk|direct|write:4096 fsync
		RWF_DSYNC of the disk|direct|dsync:4096
	END
}

# test_cache_file VALUE: 3 subtests, on the file system of the disk.
test_cache_file() {
	echo "$1" >"/sys/block/$DISK/dax/write_cache"
	mount -o dax=always,noatime "/dev/$DISK" $MNT
	rm -f $MNT/file
	truncate -s 1M $MNT/file
	pmem-io fill $MNT/file
	sync
	record "$1: a mapping of a DAX file and fdatasync" "$(count_flushes pmem-io map-write $MNT/file --durable msync --seed 2)"
	umount $MNT
	rebind "$NAMESPACE"
	mount -o dax=always,noatime "/dev/$DISK" $MNT
	check "$1: what was stored is there" pmem-io map-verify $MNT/file --seed 2
	umount $MNT
	record "$1: the driver was away" "$(cat "/sys/block/$DISK/dax/write_cache")"
}

# ---- files ----

# check_flushes NAME COMMAND…: the command flushes the region.
check_flushes() {
	name=$1
	shift
	provider flushes 0
	"$@" >/dev/null
	check "$name" test "$(provider flushes)" -gt 0
}

# reads_without_flush FILE: the journal may be committed at the same time, which flushes.
reads_without_flush() {
	provider flushes 0
	pmem-io verify "$1"
	[ "$(provider flushes)" = 0 ]
}

# test_calls TYPE OPTION: 10 subtests.
test_calls() {
	mount -o "$2" "/dev/$DISK" $MNT
	rm -f $MNT/file
	fallocate -l 1M $MNT/file
	sync -f $MNT
	check_flushes "$1, $2: write(2) and fsync" pmem-io fill $MNT/file
	check "$1, $2: reading does not" wait_for 30 reads_without_flush $MNT/file
	check_flushes "$1, $2: msync of a mapping" pmem-io map-write --seed 2 --durable msync $MNT/file
	check_flushes "$1, $2: a mapping and fsync" pmem-io map-write --seed 3 --durable fsync $MNT/file
	check_flushes "$1, $2: write(2) and fdatasync" dd if=/dev/zero of=$MNT/file bs=64K count=1 conv=fdatasync,notrunc status=none
	check_flushes "$1, $2: O_SYNC" dd if=/dev/zero of=$MNT/file bs=64K count=1 oflag=sync conv=notrunc status=none
	check_flushes "$1, $2: O_DIRECT and O_DSYNC" dd if=/dev/zero of=$MNT/file bs=64K count=1 oflag=direct,dsync conv=notrunc status=none
	[ "$1" = XFS ] || test_order "$2"
	echo x >$MNT/new
	check_flushes "$1, $2: a new file and syncfs" sync -f $MNT
	echo y >$MNT/new
	check_flushes "$1, $2: unmounting" umount $MNT
	mount -o "$2" "/dev/$DISK" $MNT
	is "$1, $2: the new file is there" "$(cat $MNT/new)" y
	umount $MNT
}

# test_order OPTION: 2 subtests: data and journal are written before the flush.
test_order() {
	provider watch "$(disk_offset_of $MNT/file 0)"
	provider flushes 0
	pattern bbbbbbb 8 >/tmp/data
	dd if=/tmp/data of=$MNT/file bs=4k count=1 conv=notrunc,fsync status=none
	check "fsync on ext4 with $1" test "$(provider flushes)" -ge 1
	is "with $1, the last flush saw the data" "$(provider seen)" "$(od -An -tu8 -N8 /tmp/data | tr -d ' ')"
}

# test_counts TYPE DAX: 10 subtests. All blocks are allocated first, so that only the tested I/O writes.
test_counts() {
	name="$1, dax=$2"
	mount -o "dax=$2,noatime" "/dev/$DISK" $MNT
	truncate -s 1M $MNT/file
	pmem-io fill $MNT/file
	count_each "$name" $MNT/file settled <<-END
		overwritten and fsync|cached|write:4096 fsync
		overwritten and fdatasync|cached|write:4096 fdatasync
		overwritten with O_DIRECT and fdatasync|direct|write:4096 fdatasync
		overwritten with O_DIRECT and RWF_DSYNC|direct|dsync:4096
		overwritten with RWF_DSYNC|cached|dsync:4096
		fsync with nothing to do|cached|fsync
	END
	record "$name: a mapping and msync" "$(settle_writes && count_flushes pmem-io map-write $MNT/file --durable msync --seed 2)"
	case $2 in
	always) record "$name: MAP_SYNC, flushed by the program" "$(settle_writes && count_flushes pmem-io map-write $MNT/file --sync --durable flush --seed 3)" ;;
	*) check_fails "$name: MAP_SYNC" pmem-io map-write $MNT/file --sync ;;
	esac
	pmem-io fill $MNT/file --seed 4
	check "$name: umount flushes" test "$(count_flushes umount $MNT)" -ge 1
	mount -o "dax=$2,noatime" "/dev/$DISK" $MNT
	check "$name: it is there" pmem-io verify $MNT/file --seed 4
	umount $MNT
}

# settle_writes: makes the file system write all pending data.
settle_writes() {
	sync
	sync
}

# make_file_system ext4|xfs: one that writes nothing by itself for long. XFS does not support a disk this small.
make_file_system() {
	case $1 in
	ext4) mkfs.ext4 -q -F -b 4096 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "/dev/$DISK" ;;
	xfs) mkfs.xfs -q -f -K --unsupported "/dev/$DISK" ;;
	esac
}

plan 168
mkdir -p $MNT
modprobe xfs
echo 30000 >/proc/sys/fs/xfs/xfssyncd_centisecs

provide pages=1
is "the file's mode" "$(stat -c %a "/sys/block/$DISK/dax/write_cache")" 644
record "at first" "$(cat "/sys/block/$DISK/dax/write_cache")"
test_disk raw "$DISK"
is "a direct write" "$(counted "a direct write of 4 KiB")" 0
is "a direct read" "$(counted "a direct read")" 0
is "a direct write and fsync" "$(counted "a direct write and fsync")" 1
is "writes by the page cache, and one fsync" "$(counted "a write by the page cache and fsync")" 1
test_queue
test_cache_disk 0
test_cache_disk 1
make_file_system ext4
test_calls ext4 dax=always
test_calls ext4 dax=never
test_cache_file 0
test_cache_file 1
make_file_system xfs
test_calls XFS dax=always
test_calls XFS dax=never
test_disk fsdax "$(make_fsdax "$NAMESPACE")"
provider_cleanup

# MAP_SYNC needs memory that the platform declares to need no flush.
provide pages=1 dimm=0 size=$((128 << 20))
test_disk "raw, no flush known" "$DISK"
is "region says nothing of flushes" "$(cat "$ND/region"*/deep_flush 2>&1 | grep -c 'No such file')" 1
for type in ext4 xfs; do
	make_file_system $type
	for dax in never always; do
		test_counts $type $dax
	done
done
# Writes of 4 KiB: in sector mode each block takes 4 flushes: data, two of the log, the map.
test_disk sector "$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)"
