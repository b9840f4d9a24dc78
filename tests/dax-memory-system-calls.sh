#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# System calls that use pages of a mapping work as recorded on DAX files, device DAX and a disk without struct pages.
# compare
# kernel: device_dax
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
}

# run_steps STEP…: performs the steps on 2 MiB in one process; prints the result of the last one, and whether bytes were wrong.
run_steps() {
	steps_status=0
	pmem-io map --length 2M "$target" "$@" >/tmp/steps 2>&1 || steps_status=$?
	tail -n 1 /tmp/steps
	[ $steps_status != 3 ] || echo "with other bytes"
}

# overwrite_target: no byte has the pattern that the steps look for.
overwrite_target() {
	pmem-io map --length 2M --seed 9 "$target" store
}

# test_calls NAME FILE SENDFILE PIN LOCKED: each call on the full length with the right bytes; the expected results of
# sendfile and of a pin; the expected VmLck.
test_calls() {
	name=$1 target=$2
	pmem-io fill --direct --length 2M "/dev/$other"
	overwrite_target
	is "$name: read from a disk, directly" "$(run_steps "direct-read=/dev/$other")" "direct-read: 2097152 bytes"
	pmem-io fill --direct --length 2M --seed 9 "/dev/$other"
	is "$name: written to a disk, directly" "$(run_steps store "direct-write=/dev/$other")" "direct-write: 2097152 bytes"
	check "$name: the disk has it" pmem-io verify --direct --length 2M "/dev/$other"
	is "$name: vmsplice" "$(run_steps vmsplice)" "vmsplice: 2097152 bytes"
	is "$name: process_vm_readv" "$(run_steps process-read)" "process-read: 2097152 bytes"
	overwrite_target
	is "$name: process_vm_writev" "$(run_steps process-write)" "process-write: 2097152 bytes"
	is "$name: sendfile" "$(run_steps sendfile)" "$3"
	# The loopback device copies the pages, because the receiver may keep them for long.
	is "$name: MSG_ZEROCOPY" "$(run_steps zerocopy)" "zerocopy: 2097152 bytes, copied"
	is "$name: pages kept by an io_uring" "$(run_steps pin)" "$4"
	case $4 in
	"pin: granted")
		overwrite_target
		is "$name: read into kept pages" "$(run_steps "pin-read=/dev/$other")" "pin-read: 2097152 bytes"
		pmem-io fill --direct --length 2M --seed 9 "/dev/$other"
		is "$name: written from kept pages" "$(run_steps "pin-write=/dev/$other")" "pin-write: 2097152 bytes"
		check "$name: the disk has that, too" pmem-io verify --direct --length 2M "/dev/$other"
		;;
	esac
	is "$name: mlock" "$(run_steps lock)" "lock: ok"
	is "$name: VmLck then" "$(run_steps lock status=VmLck)" "status: $5"
	is "$name: MADV_HUGEPAGE" "$(run_steps huge)" "huge: ok"
	record "$name: VmFlags" "$(run_steps load smaps=VmFlags)"
}

# test_files TYPE
test_files() {
	make_fs "$1" "$disk"
	mount_dax "$disk"
	fallocate -l 4M $MNT/file
	test_calls "$1" $MNT/file "sendfile: 2097152 bytes" "pmem-io: pin: Operation not supported (os error 95)" "0 kB"
	umount $MNT
}

plan 68
load_driver
other=$(e820_disk)
disk=$(labelled_disk -m fsdax -M mem)
test_files ext4
test_files xfs

disk=$(plain_disk)
test_calls "no struct pages, the disk" "/dev/$disk" "sendfile: 2097152 bytes" "pmem-io: pin: Bad address (os error 14)" "2048 kB"
make_fs ext4 "$disk"
mount "/dev/$disk" $MNT
fallocate -l 4M $MNT/file
test_calls "no struct pages, ext4" $MNT/file "sendfile: 2097152 bytes" "pmem-io: pin: Bad address (os error 14)" "2048 kB"
umount $MNT

labelled_disk -m devdax -s 32M >/dev/null
modprobe device_dax
settle
dax=$(ndctl list -X -m devdax | jq -r '.[].daxregion.devices[].chardev')
test_calls "device DAX" "/dev/$dax" "pmem-io: sendfile: Invalid argument (os error 22)" "pin: granted" "0 kB"
