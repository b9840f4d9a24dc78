#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On XFS, a machine check in a DAX file signals its mapper and lists one page; one in metadata shuts the file system
# down.
# compare
# kernel: device_dax
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/sigbus.sh"

cleanup() {
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
	rm -f /tmp/sigbus.* /tmp/mce-xfs-file-and-metadata.json
}

# signal_after_mce FILE ADDRESS: injects a machine check; prints the signal that a process gets that maps all of the
# file.
signal_after_mce() {
	map_start --length 4M "$1"
	dmesg -C
	host mce $(($2))
	tries=0
	until dmesg | grep -q 'recovery action' || [ $((tries += 1)) -gt 100 ]; do
		sleep 0.1
	done
	map_stop
	sigbus_info
}

kernel_messages() {
	dmesg | grep 'Memory failure\|XFS' |
		sed 's/^\[[^]]*\] //; s/0x[0-9a-f]*/X/g; s/pmem-io:[0-9]*/pmem-io/; s/ at .*//; s/ caller .*//'
}

plan 21
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 400M)
make_xfs_file "$disk"
sector=$(((address - start) / 512))
record "SIGBUS of the process" "$(signal_after_mce $MNT/file "$address")"
record "the kernel says" "$(kernel_messages)"
becomes "the page is listed" "$sector 8" cat "/sys/block/$disk/badblocks"
# Code 4: BUS_MCEERR_AR.
is "a mapping: it alone is refused" "$(pmem-io map-read $MNT/file)" "page 257 code 4 lsb 12 address 0x101000"
is "a store to it" "$(pmem-io map $MNT/file store=1028K+4K | head -n 1)" "page 257 code 4 lsb 12 address 0x101000"
check_fails "a read of it" pmem-io pread --offset 1028K --length 4K $MNT/file
check "what is before" pmem-io verify --length 1028K $MNT/file
check "what is behind" pmem-io verify --offset 1032K --length 3064K $MNT/file
fallocate -l 4M $MNT/copy
record_result "direct I/O from it" pmem-io map --offset 1M --length 8K $MNT/file "direct-write=$MNT/copy"
record_result "direct I/O into it" pmem-io map --offset 1M --length 8K $MNT/file "direct-read=$MNT/copy"
record_result "process_vm_readv of it" pmem-io map --offset 1028K --length 4K $MNT/file process-read
record_result "vmsplice of it" pmem-io map --offset 1028K --length 4K $MNT/file vmsplice
record_result "sendfile of it" pmem-io map --offset 1028K --length 4K $MNT/file sendfile
check "the file system survives" sh -c "echo x >$MNT/other && sync -f $MNT"
dmesg -C
host mce $((start))
tries=0
until dmesg | grep -q 'recovery action' || [ $((tries += 1)) -gt 100 ]; do
	sleep 0.1
done
record "one in its records: the kernel says" "$(kernel_messages | sed "s/($disk)/(DISK)/")"
record_result "then a file is made" sh -c "echo x >$MNT/new"
check_fails "and a page of the file read" pmem-io pread --length 64K $MNT/file
check "unmounted" umount $MNT

# Device DAX, on the rest of the NVDIMM.
make_namespace -r "$(labelled_region)" -m devdax -s 32M -a 4096 >/tmp/mce-xfs-file-and-metadata.json
modprobe device_dax
settle
dax=/dev/$(ndctl list -X -m devdax | jq -r '[.. | .chardev? // empty] | first')
pmem-io map --length 4M "$dax" store >/dev/null
record "device DAX: SIGBUS of the process" "$(signal_after_mce "$dax" "$(pmem-io phys --offset 1028K "$dax")")"
record "device DAX: the kernel says" "$(kernel_messages)"
record_result "device DAX: touched then" pmem-io map --length 4M "$dax" load
