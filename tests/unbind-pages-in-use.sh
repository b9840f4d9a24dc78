#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Unbind returns while DAX pages are in use; the memory stays claimed until processes and the file system release the last one.
#
# Machine checks on these pages and on others are still handled. XFS also remembers pages that files share, which have no
# mapping, only a count of files. Without the reverse map, it drops the pages at unbind of those files only that are not open.
# quick
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "with the C driver the struct pages go away under the process, and munmap oopses"
need xfs_io stdbuf

cleanup() {
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	exec 5>&- 6>&-
	umount $MNT /tmp/other 2>/dev/null
	rm -f /dev/shm/file
	! driver_loaded || unload_driver
}

is_bound() {
	[ -e "/sys/bus/nd/drivers/$DRIVER/$device" ]
}

is_unclaimed() {
	! grep -q "$1" /proc/iomem
}

# make_one SIZE: makes a namespace; prints its disk.
make_one() {
	make_namespace -r "$region" -m fsdax -M mem -s "$1" | jq -r .blockdev
}

# claimed_namespace DEVICE: the namespace of the device, in whose name the memory is claimed.
claimed_namespace() {
	cat "$ND/$1/namespace"
}

# map_file FILE OFFSET DESCRIPTOR: starts process $xfs_io, which maps 1 MiB of the file and writes to it; it reads commands
# from the descriptor.
map_file() {
	mkfifo /tmp/commands
	stdbuf -oL xfs_io "$1" </tmp/commands >/tmp/answers 2>&1 5>&- 6>&- &
	xfs_io=$!
	eval "exec $3>/tmp/commands"
	rm /tmp/commands
	printf 'mmap -rw %d 1m\nmwrite -S 0x61 %d 1m\nmread -v %d 16\n' "$2" "$2" "$2" >&"$3"
}

# process_reads: the process reads the data that it has written.
process_reads() {
	wait_for 30 grep -q aaaaaaaaaaaaaaaa /tmp/answers
}

# unbind_in_time: unbind returns soon.
unbind_in_time() {
	{
		echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	} >/dev/null 2>&1 5>&- 6>&- &
	unbind=$!
	wait_for 30 has_returned
}

has_returned() {
	! kill -0 "$unbind" 2>/dev/null
}

# mce_is_handled ADDRESS: the kernel's recovery has finished for the page.
mce_is_handled() {
	host mce "$1"
	wait_for 60 recovery_done "$(printf %x $(($1 >> 12)))"
}

recovery_done() {
	dmesg | grep -q "Memory failure: 0x$1: recovery action for .*: Recovered"
}

# behind_128m FILE: the offset of 1 MiB of the file that is in the second 128 MiB of the disk.
behind_128m() {
	filefrag -e -b1 -v /proc/self/fd/0 <"$1" | awk '
		{ gsub(/[:.]/, " ") }
		$1 ~ /^[0-9]+$/ {
			first = $4 > 134217728 ? $4 : 134217728
			last = $5 < 268435455 ? $5 : 268435455
			if (last - first >= 1048575) { printf "%.0f\n", $2 + first - $4; exit }
		}'
}

plan 35
load_driver
fresh_labels
region=$(labelled_region)
# With full memory sections, so that the struct pages are freed with the binding.
disk=$(make_one 384M)
device=$(device_of_disk "$disk")
namespace=$(claimed_namespace "$device")
other_disk=$(make_one 64M)
other_device=$(device_of_disk "$other_disk")
other_namespace=$(claimed_namespace "$other_device")
dmesg -C

# ---- ext4: pages that a process maps ----

make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 300M $MNT/file
truncate -s 4M $MNT/other
pmem-io fill $MNT/other
# The driver skips 128 MiB at a time if none of it is mapped.
at=$(behind_128m $MNT/file)
is "none of the first 128 MiB is mapped" "$(($(disk_offset_of $MNT/file "$at") >> 27))" 1
map_file $MNT/file "$at" 5
check "it is mapped" process_reads
page=$(pmem-io phys --offset $((at + 65536)) $MNT/file)
check "unbinding returns" unbind_in_time
check_fails "it is unbound" is_bound
check "the log says which page is in use" sh -c "dmesg | grep '$namespace: page frame .* is in use'"
check "the memory stays claimed" grep -q "$namespace" /proc/iomem
is "it can't be bound" "$(bind_error "$device")" "Device or resource busy"
check "and the log says why" sh -c "dmesg | grep 'page frame .* of an earlier binding is in use: close the files that map it'"
modprobe nd_pmem
is "nor by the C driver" "$(env echo "$device" 2>&1 >/sys/bus/nd/drivers/nd_pmem/bind | sed 's/.*write error: //')" "Device or resource busy"
rmmod nd_pmem
check_fails "the module can't be unloaded" rmmod "$DRIVER"

# Another one at a higher address, which has pages in use for less time.
check "another namespace can be bound meanwhile" rebind "$other_device"
mkdir -p /tmp/other
make_fs ext4 "$other_disk"
mount -o dax=always "/dev/$other_disk" /tmp/other
fallocate -l 1M /tmp/other/file
pmem-io map-write /tmp/other/file
exec 6</tmp/other/file
echo "$other_device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
check "its pages are in use as well" grep -q "$other_namespace" /proc/iomem
exec 6<&-
umount /tmp/other
check "then its claim is released" wait_for 30 is_unclaimed "$other_namespace"
check "that of the first is not" grep -q "$namespace" /proc/iomem
: >/tmp/answers
printf 'mread -v %d 16\n' $((at + 4096)) >&5
check "the process still has its memory" process_reads

# By default the kernel does not look for processes before they touch the page.
echo 1 >/proc/sys/vm/memory_failure_early_kill
check "a machine check on it is handled" mce_is_handled "$page"
check "the process gets a signal" wait_for 30 sh -c "dmesg | grep 'Sending SIGBUS to xfs_io:$xfs_io '"
exec 5>&-
wait "$xfs_io" 2>/dev/null || :
truncate -s 1M /dev/shm/file
map_file /dev/shm/file 0 6
check "a file in RAM is mapped" process_reads
check "a machine check on that is handled" mce_is_handled "$(pmem-io phys --offset 64K /dev/shm/file)"
exec 6>&-
is "it can't be bound while a file system remembers the pages" "$(bind_error "$device")" "Device or resource busy"

check "umount" umount $MNT
check "it can be bound again at once" sh -c "echo $device >/sys/bus/nd/drivers/$DRIVER/bind"
forget_errors "$disk"
check "the file system is mounted again" mount_dax "$disk"
check "what was synced is there" pmem-io verify $MNT/other

# Nobody binds it, so that the driver finds itself that the last page is idle.
map_file $MNT/other 0 5
process_reads
echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind" 5>&-
: >/tmp/answers
printf 'mread -v 4096 16\nmunmap\nquit\n' >&5
exec 5>&-
wait "$xfs_io"
check "the memory was there for the process" grep -q aaaaaaaaaaaaaaaa /tmp/answers
check "umount again" umount $MNT
check "the claim is released" wait_for 30 is_unclaimed "$namespace"
echo "$device" >"/sys/bus/nd/drivers/$DRIVER/bind"
check "and can be bound again" is_bound

# ---- XFS: pages that files share ----

make_fs xfs "$disk" -m reflink=1,rmapbt=0
mount_dax "$disk"
truncate -s 1M $MNT/one
pmem-io fill $MNT/one
check "a copy that shares all blocks" cp --reflink=always $MNT/one $MNT/two
# Then no page is remembered from the time before they were shared.
umount $MNT
mount_dax "$disk"
exec 5<$MNT/one 6<$MNT/two
check "both mapped and read" sh -c "pmem-io map-read $MNT/one && pmem-io map-read $MNT/two"
echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
is "it can't be bound while the file system remembers the pages" "$(bind_error "$device")" "Device or resource busy"
exec 5<&- 6<&-
check "XFS: umount" umount $MNT
check "it can be bound again" sh -c "echo $device >/sys/bus/nd/drivers/$DRIVER/bind"
mount_dax "$disk"
check "the files are there" sh -c "pmem-io verify $MNT/one && pmem-io verify $MNT/two"
umount $MNT
check "the module can be unloaded" rmmod "$DRIVER"
