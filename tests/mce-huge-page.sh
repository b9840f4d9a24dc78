#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check in a page that is mapped as a part of a huge one costs that page alone, and a repair makes it huge again.
# kernel: transparent_hugepage
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M --cpus 2
. "$(dirname "$0")/lib/test.sh"

trace=/sys/kernel/tracing

cleanup() {
	echo 0 >$trace/events/fs_dax/enable
	umount $MNT 2>/dev/null
	forget_errors "$disk"
}

# count_faults: the number of successful faults of each size since the last call.
count_faults() {
	printf '%d of 2 MiB, %d of 4 KiB' "$(grep -c 'dax_pmd_fault_done: .*NOPAGE' $trace/trace)" \
		"$(grep -c 'dax_pte_fault_done: .*NOPAGE' $trace/trace)"
	echo >$trace/trace
}

[ "$DRIVER" = rust_pmem ] || skip_all "with C, a bus that can't clear poison repairs nothing"
need pmem-io
plan 8
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 128M)
echo 1 >"/sys/block/$disk/errors/overwrite_heals"
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 4M $MNT/file
pmem-io map-write $MNT/file
# Page 612, in the second huge page.
address=$(($(pmem-io phys $MNT/file --offset 2448K)))
echo 1 >$trace/events/fs_dax/enable
echo >$trace/trace
pmem-io map $MNT/file store "run=host mce $address 12; until grep -q . /sys/block/$disk/badblocks; do sleep 0.1; done" load >/tmp/map || :
is "it was mapped by huge pages" "$(count_faults)" "2 of 2 MiB, 0 of 4 KiB"
sed 's/^/# /' /tmp/map
is "one page is listed" "$(awk '{ print $2 }' "/sys/block/$disk/badblocks")" 8
is "a new mapping loses it alone" "$(pmem-io map-read $MNT/file)" "page 612 code 4 lsb 12 address 0x264000"
check_fails "a read of it" pmem-io pread $MNT/file --offset 2448K --length 4K
check "all others are there" pmem-io verify $MNT/file --length 2448K
check "also behind it" pmem-io verify $MNT/file --offset 2452K --length 1644K
check "it is written over" pmem-io fill $MNT/file --offset 2448K --length 4K
echo >$trace/trace
pmem-io map-verify $MNT/file
is "all is mapped by huge pages again" "$(count_faults)" "2 of 2 MiB, 0 of 4 KiB"
