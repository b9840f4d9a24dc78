#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What the kernel does with the pages of a mapping: of DAX files, of device DAX, and of a disk without struct pages, which the
# page cache serves.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# quick
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
}

# does STEP…: in one process, to 2 MiB; the answer of the last one.
does() {
	pmem-io map --length 2M "$target" "$@" 2>&1 | tail -n 1
}

# spoilt: no byte is of the pattern that the steps look for.
spoilt() {
	pmem-io map --length 2M --seed 9 "$target" store
}

# rows NAME FILE SENDFILE PIN LOCKED: each operation at full length, with the right bytes; what sendfile and a pin answer; VmLck.
rows() {
	name=$1 target=$2
	pmem-io fill --direct --length 2M "/dev/$other"
	spoilt
	is "$name: read from a disk, directly" "$(does "direct-read=/dev/$other")" "direct-read: 2097152 bytes"
	pmem-io fill --direct --length 2M --seed 9 "/dev/$other"
	is "$name: written to a disk, directly" "$(does store "direct-write=/dev/$other")" "direct-write: 2097152 bytes"
	check "$name: the disk has it" pmem-io verify --direct --length 2M "/dev/$other"
	is "$name: vmsplice" "$(does vmsplice)" "vmsplice: 2097152 bytes"
	is "$name: process_vm_readv" "$(does process-read)" "process-read: 2097152 bytes"
	spoilt
	is "$name: process_vm_writev" "$(does process-write)" "process-write: 2097152 bytes"
	is "$name: sendfile" "$(does sendfile)" "$3"
	# Loopback hands pages to a receiver that keeps them for as long as it likes: it copies them.
	is "$name: MSG_ZEROCOPY" "$(does zerocopy)" "zerocopy: 2097152 bytes, copied"
	is "$name: pages kept by an io_uring" "$(does pin)" "$4"
	case $4 in
	"pin: granted")
		spoilt
		is "$name: read into kept pages" "$(does "pin-read=/dev/$other")" "pin-read: 2097152 bytes"
		pmem-io fill --direct --length 2M --seed 9 "/dev/$other"
		is "$name: written from kept pages" "$(does "pin-write=/dev/$other")" "pin-write: 2097152 bytes"
		check "$name: the disk has that, too" pmem-io verify --direct --length 2M "/dev/$other"
		;;
	esac
	is "$name: mlock" "$(does lock)" "lock: ok"
	is "$name: VmLck then" "$(does lock status=VmLck)" "status: $5"
	is "$name: MADV_HUGEPAGE" "$(does huge)" "huge: ok"
	record "$name: VmFlags" "$(does load smaps=VmFlags)"
}

# files TYPE
files() {
	make_fs "$1" "$disk"
	mount_dax "$disk"
	fallocate -l 4M $MNT/file
	rows "$1" $MNT/file "sendfile: 2097152 bytes" "pmem-io: pin: Operation not supported (os error 95)" "0 kB"
	umount $MNT
}

plan 68
load_driver
other=$(e820_disk)
disk=$(labelled_disk -m fsdax -M mem)
files ext4
files xfs

disk=$(plain_disk)
rows "no struct pages, the disk" "/dev/$disk" "sendfile: 2097152 bytes" "pmem-io: pin: Bad address (os error 14)" "2048 kB"
make_fs ext4 "$disk"
mount "/dev/$disk" $MNT
fallocate -l 4M $MNT/file
rows "no struct pages, ext4" $MNT/file "sendfile: 2097152 bytes" "pmem-io: pin: Bad address (os error 14)" "2048 kB"
umount $MNT

labelled_disk -m devdax -s 32M >/dev/null
modprobe device_dax
settle
dax=$(ndctl list -X -m devdax | jq -r '.[].daxregion.devices[].chardev')
rows "device DAX" "/dev/$dax" "pmem-io: sendfile: Invalid argument (os error 22)" "pin: granted" "0 kB"
