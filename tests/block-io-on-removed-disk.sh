#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# I/O to a disk during and after its removal fails cleanly: running I/O, open files, ioctls, mappings.
# compare
# vm: labels 2
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"
. "$(dirname "$0")/lib/busy.sh"

# test_removal NAME DISK OPTIONS OF fio…: unbinds the device while fio runs. Timing decides whether the current call
# fails, or the next one finds a disk of size 0.
test_removal() {
	name=$1 disk=$2
	shift 2
	device=$(device_of_disk "$disk")
	# Without a disk, fio would make a file of its name.
	start_fio "/dev/$disk" --filename="/dev/$disk" --allow_file_create=0 --size=16M --bs=64k --time_based --runtime=120 --minimal "$@"
	sleep 1
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	add_row "$name: the node" "$([ -e "/dev/$disk" ] && echo "is there" || echo "is gone")"
	began=$(cut -d. -f1 /proc/uptime)
	wait "$fio_pid" && status=0 || status=$?
	add_row "$name: fails" "$([ "$status" -ne 0 ] && echo yes), $([ $(($(cut -d. -f1 /proc/uptime) - began)) -lt 60 ] && echo "at once")"
	add_row "$name: says" "$(grep '^fio:' /tmp/fio.errors | grep -v 'Input/output error\|No space left\|No such device\|full resid\|pid=' | head -n 1)."
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/bind"
	settle
	add_row "$name: bound again" "$(pmem-io pread --direct "/dev/$disk" --length 4096 2>&1)"
}

# test_open_files NAME DISK: files of the disk that are open during the removal.
test_open_files() {
	name=$1 disk=$2
	device=$(device_of_disk "$disk")
	exec 5<>"/dev/$disk" 6<"/sys/block/$disk/dax/write_cache" 7<"/sys/block/$disk/badblocks" 8<"/sys/block/$disk/queue/iostats"
	dd bs=4096 count=1 status=none of=/dev/null <&5
	# Leave a dirty page.
	printf dirty >&5
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	add_row "$name, open: read of what is cached" "$(dd bs=4096 count=1 status=none 2>&1 <&5 | wc -c)"
	# shellcheck disable=SC2016 # for perl
	add_row "$name, open: calls" "$(perl -e '
		open(my $f, "+<&=", 5) or die "$!";
		sub report { my ($name, $answer) = @_; printf "%s %s, ", $name, defined($answer) && $answer >= 0 ? $answer : "$!" }
		my $bytes = "x" x 4096;
		my $one = pack("i", 1);
		report("read", syscall(17, 5, $bytes, 4096, 1 << 20));
		report("write", syscall(18, 5, $bytes, 4096, 1 << 20));
		report("fsync", syscall(74, 5));
		report("fdatasync", syscall(75, 5));
		report("seek", sysseek($f, 0, 2));
		report("fallocate", syscall(285, 5, 3, 0, 4096));
		report("BLKGETSIZE64", syscall(16, 5, 0x80081272, $bytes));
		report("BLKFLSBUF", syscall(16, 5, 0x1261, 0));
		report("BLKROSET", syscall(16, 5, 0x125d, $one));
		report("BLKRRPART", syscall(16, 5, 0x125f, 0));
		my $address = syscall(9, 0, 4096, 1, 1, 5, 0);
		report("mmap", $address > 0 ? 1 : -1);
		for (6, 7, 8) { report("read of a file of its folder", syscall(17, $_, $bytes, 4096, 0)) }' 2>&1)"
	exec 5>&- 6<&- 7<&- 8<&-
	add_row "$name, gone: open" "$(dd if="/dev/$disk" of=/dev/null count=1 status=none 2>&1 | sed 's/.*: //')"
	mknod /tmp/old b "$major" "$minor"
	add_row "$name, gone: open by number" "$(dd if=/tmp/old of=/dev/null count=1 status=none 2>&1 | sed 's/.*: //')"
	rm /tmp/old
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/bind"
	settle
	add_row "$name, bound again" "$(pmem-io pread --direct "/dev/$disk" --length 4096 2>&1)"
}

read_device_number() {
	IFS=: read -r major minor <"/sys/block/$1/dev"
}

cleanup() {
	rm -f /tmp/old
}

need perl mknod fio
load_driver
for kind in raw fsdax; do
	case $kind in
	raw) disk=$(plain_disk) ;;
	fsdax) disk=$(labelled_disk -m fsdax -M mem -s 64M) ;;
	esac
	test_removal "$kind, direct reads" "$disk" --direct=1 --rw=randread
	test_removal "$kind, deep queue" "$disk" --direct=1 --rw=randrw --ioengine=io_uring --iodepth=16
	test_removal "$kind, synchronous writes" "$disk" --direct=1 --rw=randwrite --sync=1
	test_removal "$kind, buffered" "$disk" --rw=randrw --fsync=8
	read_device_number "$disk"
	test_open_files "$kind" "$disk"
done
disk=$(labelled_disk -m sector -s 64M)
test_removal "sector, direct reads" "$disk" --direct=1 --rw=randread
add_row "the log" "$(dmesg -t | grep -c 'BUG\|WARNING\|Oops') reports"
report_rows
