#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Unbind returns while a process maps a DAX file; the memory stays claimed until its last page is idle.
#
# Machine checks on these pages and on others are still handled.
# vm: --bare --append memmap=128M$512M --cpus 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "with the C driver the struct pages go away under the process, and munmap oopses"
need xfs_io stdbuf

cleanup() {
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	exec 5>&- 6>&-
	umount $MNT 2>/dev/null
	rm -f /dev/shm/file
	provider_cleanup
}

is_bound() {
	[ -e "/sys/bus/nd/drivers/$DRIVER/$NAMESPACE" ]
}

# map_file FILE DESCRIPTOR: starts process $xfs_io, which maps all of the file and writes to it; it reads commands from
# the descriptor.
map_file() {
	mkfifo /tmp/commands
	stdbuf -oL xfs_io "$1" </tmp/commands >/tmp/answers 2>&1 5>&- 6>&- &
	xfs_io=$!
	eval "exec $2>/tmp/commands"
	rm /tmp/commands
	printf 'mmap -rw 0 1m\nmwrite -S 0x61 0 1m\nmread -v 0 16\n' >&"$2"
}

# process_reads: the process reads the data that it has written.
process_reads() {
	wait_for 30 grep -q aaaaaaaaaaaaaaaa /tmp/answers
}

# unbind_in_time: unbind returns soon.
unbind_in_time() {
	{
		echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
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

plan 21
# A full memory section, so that its struct pages are freed with the binding.
provide size=$((128 << 20))
dmesg -C
mkfs.ext4 -q -b 4096 "/dev/$DISK"
mount_dax "$DISK"
truncate -s 1M $MNT/file
truncate -s 4M $MNT/other
pmem-io map-write $MNT/other --durable fsync
sync
map_file $MNT/file 5
check "it is mapped" process_reads
page=$(pmem-io phys --offset 64K $MNT/file)
check "unbinding returns" unbind_in_time
check_fails "it is unbound" is_bound
check "the log says which page is in use" sh -c "dmesg | grep '$NAMESPACE: page frame .* is in use'"
check "the memory stays claimed" grep -q "$NAMESPACE" /proc/iomem
is "it can't be bound" "$(bind_error "$NAMESPACE")" "Device or resource busy"
check "and the log says why" sh -c "dmesg | grep 'page frame .* of an earlier binding is in use: close the files that map it'"
modprobe nd_pmem
is "nor by the C driver" "$(env echo "$NAMESPACE" 2>&1 >/sys/bus/nd/drivers/nd_pmem/bind | sed 's/.*write error: //')" "Device or resource busy"
rmmod nd_pmem
check_fails "the module can't be unloaded" rmmod "$DRIVER"
: >/tmp/answers
printf 'mread -v 4096 16\n' >&5
check "the process still has its memory" process_reads

# By default the kernel does not look for processes before they touch the page.
echo 1 >/proc/sys/vm/memory_failure_early_kill
check "a machine check on it is handled" mce_is_handled "$page"
check "the process gets a signal" wait_for 30 sh -c "dmesg | grep 'Sending SIGBUS to xfs_io:$xfs_io '"
exec 5>&-
wait "$xfs_io" 2>/dev/null || :
truncate -s 1M /dev/shm/file
map_file /dev/shm/file 6
check "a file in RAM is mapped" process_reads
check "a machine check on that is handled" mce_is_handled "$(pmem-io phys --offset 64K /dev/shm/file)"
exec 6>&-
is "it can't be bound while a file system remembers the pages" "$(bind_error "$NAMESPACE")" "Device or resource busy"

check "umount" umount $MNT
check "it can be bound again at once" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/bind"
check "the file system is mounted again" mount_dax "$DISK"
check "what was synced is there" pmem-io verify $MNT/other
check "umount again" umount $MNT
check "the module can be unloaded" rmmod "$DRIVER"
