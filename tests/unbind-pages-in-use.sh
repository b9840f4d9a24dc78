#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A namespace is unbound while a process has a DAX file mapped: unbinding returns, machine checks go on being handled, and the memory
# stays claimed until its last page is idle.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "with the C driver the struct pages go away under the process, and munmap oopses"
need xfs_io stdbuf

cleanup() {
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	exec 5>&- 6>&-
	umount /mnt 2>/dev/null
	rm -f /dev/shm/file
	provider_cleanup
}

bound() {
	[ -e "/sys/bus/nd/drivers/$DRIVER/$NAMESPACE" ]
}

# map FILE DESCRIPTOR: a process, $xfs_io, has all of the file mapped and writes it; what is written to the descriptor is its commands.
map() {
	mkfifo /tmp/commands
	stdbuf -oL xfs_io "$1" </tmp/commands >/tmp/answers 2>&1 5>&- 6>&- &
	xfs_io=$!
	eval "exec $2>/tmp/commands"
	rm /tmp/commands
	printf 'mmap -rw 0 1m\nmwrite -S 0x61 0 1m\nmread -v 0 16\n' >&"$2"
}

# reads: whether the process gets what it has written.
reads() {
	wait_for 5 grep -q aaaaaaaaaaaaaaaa /tmp/answers
}

# unbinds: whether that takes less than 5 seconds.
unbinds() {
	{
		echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	} >/dev/null 2>&1 5>&- 6>&- &
	unbind=$!
	wait_for 5 unbound
}

unbound() {
	! kill -0 "$unbind" 2>/dev/null
}

# handled ADDRESS: whether the kernel's recovery has come to an end for the page.
handled() {
	host mce "$1"
	wait_for 10 recovered "$(printf %x $(($1 >> 12)))"
}

recovered() {
	dmesg | grep -q "Memory failure: 0x$1: recovery action for "
}

plan 21
# All of a section of memory: its struct pages go away with the binding.
provide size=$((128 << 20))
dmesg -C
mkfs.ext4 -q -b 4096 "/dev/$DISK"
mount -o dax "/dev/$DISK" /mnt
truncate -s 1M /mnt/file
truncate -s 4M /mnt/other
pmem-io map-write /mnt/other --durable fsync
sync
map /mnt/file 5
check "it is mapped" reads
page=$(pmem-io phys --offset 64K /mnt/file)
check "unbinding returns" unbinds
check_fails "it is unbound" bound
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
check "the process still has its memory" reads

# Otherwise the kernel does not look for processes before they touch the page.
echo 1 >/proc/sys/vm/memory_failure_early_kill
check "a machine check on it is handled" handled "$page"
check "the process gets a signal" wait_for 5 sh -c "dmesg | grep 'Sending SIGBUS to xfs_io:$xfs_io '"
exec 5>&-
truncate -s 1M /dev/shm/file
map /dev/shm/file 6
check "a file in RAM is mapped" reads
check "a machine check on that is handled" handled "$(pmem-io phys --offset 64K /dev/shm/file)"
exec 6>&-
is "it can't be bound while a file system remembers the pages" "$(bind_error "$NAMESPACE")" "Device or resource busy"

check "umount" umount /mnt
check "it can be bound again at once" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/bind"
check "the file system is mounted again" mount -o dax "/dev/$DISK" /mnt
check "what was synced is there" pmem-io verify /mnt/other
check "umount again" umount /mnt
check "the module can be unloaded" rmmod "$DRIVER"
