#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After an unbind under a mapped DAX file, the pages stay until the process and the file system release them.
# vm: --bare --e820 352M@512M --e820 64M@880M --cpus 2
# timeout: 60
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fs.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "with the C driver the struct pages go away under the process, and munmap oopses"
need xfs_io stdbuf
cleanup() {
	exec 5>&- 6<&-
	umount $MNT /tmp/other 2>/dev/null
	unload_driver
}

is_unclaimed() {
	! grep -q "$NAMESPACE" /proc/iomem
}

# process_reads: the process reads the data that it has written.
process_reads() {
	wait_for 30 grep -q aaaaaaaaaaaaaaaa /tmp/answers
}

is_bound() {
	[ -e "/sys/bus/nd/drivers/$DRIVER/$NAMESPACE" ]
}

plan 12
load_driver
NAMESPACE=$(e820_ns)
DISK=$(disk_of "$NAMESPACE")
dmesg -C
mkfs.ext4 -q -F -b 4096 "/dev/$DISK"
mount_dax "$DISK"
fallocate -l 200M $MNT/not-mapped
fallocate -l 1M $MNT/file
# The driver skips 128 MiB at a time if none of it is mapped. A full memory section, so that its struct pages are freed
# with the binding, begins there as well.
is "none of the first 128 MiB is mapped" "$(($(disk_offset_of $MNT/file 0) >> 27))" 1
mkfifo /tmp/commands
stdbuf -oL xfs_io $MNT/file </tmp/commands >/tmp/answers 2>&1 &
xfs_io=$!
exec 5>/tmp/commands
rm /tmp/commands
printf 'mmap -rw 0 1m\nmwrite -S 0x61 0 1m\nmread -v 0 16\n' >&5
check "it is mapped" process_reads

echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
check_fails "it is unbound" is_bound
check "the log says which page is in use" sh -c "dmesg | grep 'page frame .* is in use'"
# Another one at a higher address, which has pages in use for less time.
other=$(namespaces e820 | sed -n 2p)
check "another namespace can be bound meanwhile" rebind "$other"
mkdir -p /tmp/other
make_fs ext4 "$(disk_of "$other")"
mount -o dax=always "/dev/$(disk_of "$other")" /tmp/other
fallocate -l 1M /tmp/other/file
pmem-io map-write /tmp/other/file
exec 6</tmp/other/file
echo "$other" >"/sys/bus/nd/drivers/$DRIVER/unbind"
check "its pages are in use as well" grep -q "$other" /proc/iomem
exec 6<&-
umount /tmp/other
check "then its claim is released" wait_for 30 sh -c "! grep -q $other /proc/iomem"
check "that of the first is not" grep -q "$NAMESPACE" /proc/iomem
: >/tmp/answers
printf 'mread -v 4096 16\nmunmap\nquit\n' >&5
exec 5>&-
wait "$xfs_io"
check "the memory was there for the process" grep -q aaaaaaaaaaaaaaaa /tmp/answers
check "umount" umount $MNT
check "the claim is released" wait_for 30 is_unclaimed
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
check "and can be bound again" is_bound
