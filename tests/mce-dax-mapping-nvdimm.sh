#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check in a mapped DAX file on an NVDIMM affects one page, for the mapping, read(2) and the block device.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M --cpus 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/dax-faults.sh"
. "$(dirname "$0")/lib/sigbus.sh"

cleanup() {
	untrace_faults
	umount $MNT 2>/dev/null
	unload_driver
	rm -f /tmp/sigbus.*
}

need pmem-io
plan 10
load_driver
disk=$(make_fsdax "$(nfit_ns)")
mkfs.ext4 -q -b 4096 "/dev/$disk"
mount_dax "$disk"
truncate -s 4M $MNT/file
pmem-io fill $MNT/file
address=$(pmem-io phys $MNT/file --offset 400K)
# Mapped without a huge page meanwhile; mce-huge-page has the others.
trace_faults
map_start --length 4M $MNT/file
is "it is mapped by small pages" "$(count_faults)" "0 of 2 MiB, 1024 of 4 KiB"
pmem-io poll "/sys/block/$disk/badblocks" --run "host mce $((address))" >/tmp/badblocks
sector=$(tail -n 1 /tmp/badblocks | sed 's/ .*//')

is "a page is listed" "$(tail -n 1 /tmp/badblocks | sed 's/.* //')" 8
map_stop
count_faults >/dev/null
# Code 4: BUS_MCEERR_AR.
is "a mapping: it is refused" "$(pmem-io map-read $MNT/file)" "page 100 code 4 lsb 12 address 0x64000"
is "a mapping: by small pages, all others" "$(count_faults)" "0 of 2 MiB, 1023 of 4 KiB"
check_fails "a read of it" pmem-io pread $MNT/file --offset 400K --length 4K
check "a read over it gives nothing of it" reads_up_to 409600 $MNT/file
check "what is before" pmem-io verify $MNT/file --length 400K
check "what is behind" pmem-io verify $MNT/file --offset 404K --length 3692K
check_fails "the block can't be read" pmem-io pread "/dev/$disk" --direct --offset $((sector * 512)) --length 4K
check "the block before can" pmem-io pread "/dev/$disk" --direct --offset $((sector * 512 - 4096)) --length 4K
