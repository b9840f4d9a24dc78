#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check in an NVDIMM lists the failed block and wakes pollers, and only that block is lost, for a mapped DAX file as well.
#
# A corrected memory error is not listed, and an uncorrected one after it is.
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/dax-faults.sh"
. "$(dirname "$0")/lib/sigbus.sh"

# The kernel looks for corrected machine checks in the registers every so many seconds.
interval=/sys/devices/system/machinecheck/machinecheck0/check_interval
[ ! -e $interval ] || usual=$(cat $interval)

cleanup() {
	[ ! -e $interval ] || echo "$usual" >$interval
	untrace_faults
	umount $MNT 2>/dev/null
	rm -f /tmp/sigbus.*
}

need pmem-io
plan 18
load_driver
raw=$(labelled_disk -m raw -s 112M)
start=$(cat "/sys/block/$raw/device/resource")
disk=$(make_namespace -r "$(labelled_region)" -m fsdax -M mem -s 64M | jq -r .blockdev)

# ---- a disk ----

[ ! -e $interval ] || echo 1 >$interval
dmesg -C
host corrected $((start + (40 << 20)))
check "the kernel logs the corrected error" wait_for 60 sh -c "dmesg | grep -q 'Hardware Error'"
is "poll sees it" "$(pmem-io poll "/sys/block/$raw/badblocks" --run "host mce $((start + (60 << 20)))")" "122880 8"
check "an uncorrected error is listed" wait_for 60 grep -q . "/sys/block/$raw/badblocks"
is "the corrected one is not" "$(cat "/sys/block/$raw/badblocks")" "122880 8"
check_fails "a read of it" pmem-io pread "/dev/$raw" --direct --offset 60M --length 4K
check "a read before it" pmem-io pread "/dev/$raw" --direct --offset 59M --length 1M
check "a read behind it" pmem-io pread "/dev/$raw" --direct --offset 61444K --length 1M
# QEMU's NVDIMMs have no clear-error command.
check_fails "a write of it, which can't repair it" pmem-io pwrite "/dev/$raw" --direct --offset 60M --length 4K

# ---- a mapped file ----

mkfs.ext4 -q -F -b 4096 "/dev/$disk"
mount_dax "$disk"
truncate -s 4M $MNT/file
pmem-io fill $MNT/file
address=$(pmem-io phys $MNT/file --offset 400K)
# Mapped without a huge page meanwhile; mce-huge-page has the others.
trace_faults
map_start --length 4M $MNT/file
is "it is mapped by small pages" "$(count_faults)" "0 of 2 MiB, 1024 of 4 KiB"
pmem-io poll "/sys/block/$disk/badblocks" --run "host mce $((address))" >/tmp/badblocks || :
sector=$(tail -n 1 /tmp/badblocks | sed 's/ .*//')

is "a page is listed" "$(tail -n 1 /tmp/badblocks | sed 's/.* //')" 8
map_stop
count_faults >/dev/null
# Code 4: BUS_MCEERR_AR.
is "a mapping: it is refused" "$(pmem-io map-read $MNT/file)" "page 100 code 4 lsb 12 address 0x64000"
is "a mapping: by small pages, all others" "$(count_faults)" "0 of 2 MiB, 1023 of 4 KiB"
check_fails "a file: a read of it" pmem-io pread $MNT/file --offset 400K --length 4K
check "a read over it gives nothing of it" reads_up_to 409600 $MNT/file
check "what is before" pmem-io verify $MNT/file --length 400K
check "what is behind" pmem-io verify $MNT/file --offset 404K --length 3692K
check_fails "the block can't be read" pmem-io pread "/dev/$disk" --direct --offset $((sector * 512)) --length 4K
check "the block before can" pmem-io pread "/dev/$disk" --direct --offset $((sector * 512 - 4096)) --length 4K
