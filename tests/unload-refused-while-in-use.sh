#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# rmmod is refused while a disk is open, mounted, mapped or used as swap, without disturbing its users, but not in sector mode.
#
# There nd_btt has the disk: it is removed, and a file system on it fails.
# compare
# vm: provider 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/busy.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	exec 5>&-
	umount $MNT 2>/dev/null
	swapoff "/dev/$DISK" 2>/dev/null
	provider_cleanup
}

is_there() {
	driver_loaded || [ -e "/sys/block/$DISK" ]
}

# record_rmmod NAME: the error of rmmod, without the name of the module.
record_rmmod() {
	record "$1: rmmod" "$(rmmod "$DRIVER" 2>&1 | sed 's/.*Module [^ ]* //')"
}

need fio xfs_io mkswap
plan 24
# With flush hints (dimm=1), a disk in sector mode would be read-only.
provide size=$((128 << 20)) pages=1 dimm=0
# It writes for 10 seconds, or 50 on a kernel for debugging. It closes the disk before it verifies.
start_fio "/dev/$DISK" --filename="/dev/$DISK" --direct=1 --size=2560K --ioengine=libaio --iodepth=8 --verify=crc32c --rate_iops=$((PACE / 6))
check "fio has it open" fio_is_at_work
record_rmmod "fio"
record_rmmod "fio, again"
status=0
wait "$fio_pid" || status=$?
is "fio ends well" "$status" 0
grep -i 'err=' /tmp/fio | sed 's/^/# /'

mkdir -p $MNT
for options in "" "-o dax"; do
	mkfs.ext4 -q -F -b 4096 "/dev/$DISK"
	# shellcheck disable=SC2086 # no option or two words
	mount $options "/dev/$DISK" $MNT
	truncate -s 1M $MNT/file
	record_rmmod "ext4${options:+, $options}"
	check "ext4${options:+, $options}: which works on" sh -c "echo text >$MNT/other && sync && cat $MNT/other"
	# A process maps the file and has closed it.
	mkfifo /tmp/commands
	xfs_io $MNT/file </tmp/commands >/tmp/answers 2>&1 &
	xfs_io=$!
	exec 5>/tmp/commands
	rm /tmp/commands
	printf 'mmap -rw 0 64k\nmwrite -S 0x61 0 4k\nopen /dev/null\nclose\n' >&5
	check "ext4${options:+, $options}: mapped" wait_for 60 grep -q $MNT/file "/proc/$xfs_io/maps"
	record_rmmod "ext4${options:+, $options}, mapped"
	printf 'mread -v 0 16\nmunmap\nquit\n' >&5
	exec 5>&-
	wait "$xfs_io"
	check "ext4${options:+, $options}: the mapping is as it was" grep -q aaaaaaaaaaaaaaaa /tmp/answers
	umount $MNT
done

mkswap "/dev/$DISK" >/dev/null
swapon "/dev/$DISK"
record_rmmod "swap"
swapoff "/dev/$DISK"
exec 5<"/dev/$DISK"
record_rmmod "an open disk"
record_result "unbinding is not refused, though" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/unbind" 5<&-
record_rmmod "the disk is gone and still open"
record_result "a read of it" sh -c 'dd bs=4k count=1 status=none <&5 2>&1 >/dev/null | sed "s/.*: //"'
exec 5<&-
check "closed, it goes" rmmod "$DRIVER"
check_fails "it is gone" is_there

load_driver
disk=$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)
mkfs.ext4 -q -F -b 4096 "/dev/$disk"
mount "/dev/$disk" $MNT
echo text >$MNT/file
sync -f $MNT
check "sector mode: it goes below a mounted file system" rmmod "$DRIVER"
umount $MNT
load_driver
disk=$(disk_of "$NAMESPACE")
check "sector mode: which is mounted again" mount "/dev/$disk" $MNT
is "sector mode: with what was synced" "$(cat $MNT/file)" text
