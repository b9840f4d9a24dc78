#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check in a page that is mapped as a part of a huge one costs that page alone, and a repair makes it huge again.
# kernel: transparent_hugepage
# vm: --bare --nvdimm size=192M,labels --cpus 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/dax-faults.sh"

cleanup() {
	untrace_faults
	umount $MNT 2>/dev/null
	forget_errors "$disk"
	unload_driver
}

[ "$DRIVER:$(uname -m)" != nd_pmem:aarch64 ] || skip_all "C lists no memory error that firmware reports"
need pmem-io
plan 8
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 128M)
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 4M $MNT/file
pmem-io map-write $MNT/file
# Page 612, in the second huge page.
address=$(($(pmem-io phys $MNT/file --offset 2448K)))
trace_faults
pmem-io map $MNT/file store "run=host mce $address 12; until grep -q . /sys/block/$disk/badblocks; do sleep 0.1; done" load >/tmp/map || :
is "it was mapped by huge pages" "$(count_faults)" "2 of 2 MiB, 0 of 4 KiB"
sed 's/^/# /' /tmp/map
is "one page is listed" "$(awk '{ print $2 }' "/sys/block/$disk/badblocks")" 8
is "a new mapping loses it alone" "$(pmem-io map-read $MNT/file)" "page 612 code 4 lsb 12 address 0x264000"
check_fails "a read of it" pmem-io pread $MNT/file --offset 2448K --length 4K
check "all others are there" pmem-io verify $MNT/file --length 2448K
check "also behind it" pmem-io verify $MNT/file --offset 2452K --length 1644K
if [ "$DRIVER" = rust_pmem ]; then
	echo 1 >"/sys/block/$disk/errors/overwrite_heals"
	check "it is written over" write_over $MNT/file 2448K
	count_faults >/dev/null
	pmem-io map-verify $MNT/file
	is "all is mapped by huge pages again" "$(count_faults)" "2 of 2 MiB, 0 of 4 KiB"
else
	skip "it is written over" "with C, a bus that can't clear poison repairs nothing"
	skip "all is mapped by huge pages again" "with C, a bus that can't clear poison repairs nothing"
fi
