#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A region that is or becomes read-only, or writable again, makes its disk follow in every state, as recorded.
#
# The NVDIMM, the one without labels, is not armed. States: idle, open, mounted, sector mode. The platform saves CPU caches (eADR).
# compare
# vm: eadr
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# add_state_row NAME
add_state_row() {
	add_row "$1" "region $(cat "$ND/$region/read_only"), disk $(cat "/sys/block/$disk/ro"), $(pmem-io ioctl --read-only "/dev/$disk" BLKROGET)"
}

# set_read_only 0|1
set_read_only() {
	echo "$1" >"$ND/$region/read_only"
}

# add_io_rows NAME: the results of reads and writes.
add_io_rows() {
	add_row "$1: read" "$(pmem-io pread --direct "/dev/$disk" --length 4096 2>&1)"
	add_row "$1: write" "$(pmem-io pwrite --direct "/dev/$disk" --length 4096 2>&1)"
	add_row "$1: zeroing" "$(blkdiscard -f -z -o 0 -l 4096 "/dev/$disk" 2>&1 | sed 's/.*: //')."
	add_row "$1: flush" "$(pmem-io ioctl --read-only "/dev/$disk" BLKFLSBUF)"
}

add_log_row() {
	add_row "$1: the log" "said: $(dmesg -t | grep -v 'rust_pmem-vm\|clocksource\|perf: ' | sed 's/ [0-9a-f]\{8\}-[-0-9a-f]*/ UUID/g; s/([0-9]*)//g' | mask_numbers | paste -sd ,)"
	dmesg -C
}

cleanup() {
	umount $MNT 2>/dev/null
	raw_disk "$namespace" >/dev/null
}

# The region is as the platform makes it.
remove_providers
load_driver
namespace=$(plain_namespace)
region=$(region_of_namespace "$namespace")
disk=$(disk_of "$namespace")
dmesg -C
add_state_row "unarmed"
add_io_rows "unarmed"
add_row "caches that are saved" "$(cat "/sys/block/$disk/dax/write_cache" "/sys/block/$disk/queue/write_cache" "/sys/block/$disk/queue/fua" "$ND/$region/persistence_domain" | paste -sd ,)"
add_result_row "unarmed: mkfs" sh -c "mkfs.ext4 -q -F /dev/$disk 2>&1 | sed 's,/dev/[a-z0-9]*,DISK,' | tail -n 1"
add_result_row "unarmed: BLKROSET 0, BLKROGET" pmem-io ioctl --read-only "/dev/$disk" BLKROSET=0 BLKROGET
add_state_row "unarmed, BLKROSET 0"
add_io_rows "unarmed, BLKROSET 0"
add_result_row "unarmed: BLKROSET 1, BLKROGET" pmem-io ioctl --read-only "/dev/$disk" BLKROSET=1 BLKROGET
pmem-io ioctl --read-only "/dev/$disk" BLKROSET=0 >/dev/null
add_write_rows "unarmed" "$ND/$region" read_only -- 0 1 2 y n '' '\n' garbage '0*5000'
add_state_row "unarmed, after that"
add_log_row "unarmed"

set_read_only 0
add_state_row "armed by hand"
add_io_rows "armed by hand"
exec 5<>"/dev/$disk"
set_read_only 1
add_state_row "while it is open for writing"
add_row "open for writing: write" "$(dd if=/dev/zero bs=4096 count=1 status=none 2>&1 >&5 | sed 's/.*: //')"
add_row "open for writing: fsync" "$(sync /dev/fd/5 2>&1 | sed 's/.*: //'), $(sync -d "/dev/$disk" 2>&1 | sed 's/.*: //')"
exec 5>&-
set_read_only 0
add_state_row "and back"
pmem-io ioctl "/dev/$disk" BLKROSET=1 >/dev/null
add_state_row "BLKROSET 1 alone"
set_read_only 0
add_state_row "BLKROSET 1, and the region's read_only set to 0 again"
add_io_rows "BLKROSET 1"
pmem-io ioctl --read-only "/dev/$disk" BLKROSET=0 >/dev/null
add_state_row "BLKROSET 0"
add_log_row "raw"

disk=$(make_fsdax "$namespace")
add_state_row "fsdax"
make_fs ext4 "$disk"
mount_dax "$disk"
truncate -s 64K $MNT/file
pmem-io fill $MNT/file
dmesg -C
set_read_only 1
add_state_row "mounted"
add_row "mounted: write to a file" "$(pmem-io pwrite $MNT/file --length 4096 2>&1)"
add_row "mounted: store to a file" "$(pmem-io map-write $MNT/file --length 4096 --durable msync 2>&1)."
add_row "mounted: a new file" "$(env touch $MNT/new 2>&1 | sed 's/.*: //')."
add_row "mounted: sync" "$(sync $MNT/file 2>&1 | sed 's/.*: //')."
add_row "mounted: read of a file" "$(pmem-io verify --offset 4K --length 60K $MNT/file 2>&1)."
set_read_only 0
add_row "mounted, and back: a new file" "$(env touch $MNT/new2 2>&1 | sed 's/.*: //')."
umount $MNT
add_row "mounted: the log" "$(dmesg -t | grep -c 'rror' | sed 's/^0$/no error/; s/^[0-9]*$/errors/')"
dmesg -C
set_read_only 1
add_row "mount of a read-only disk" "$(mount -o dax "/dev/$disk" $MNT 2>&1 | sed 's,/dev/[a-z0-9]*,DISK,g' | tail -n 1)"
add_row "its options" "$(awk -v mnt=$MNT '$2 == mnt { print $4 }' /proc/mounts)."
umount $MNT 2>/dev/null || :
set_read_only 0

disk=$(make_namespace -e "$namespace" -m sector | jq -r .blockdev)
add_state_row "sector"
set_read_only 1
add_state_row "sector, read-only"
add_row "sector, read-only: write" "$(pmem-io pwrite --direct "/dev/$disk" --length 4096 2>&1)"
add_row "sector, read-only: read" "$(pmem-io pread --direct "/dev/$disk" --length 4096 2>&1)"
unload_driver
load_driver
disk=$(disk_of "$namespace")
add_state_row "sector, found read-only"
add_row "sector, found read-only: read" "$(pmem-io pread --direct "/dev/$disk" --length 4096 2>&1)"
set_read_only 0
add_state_row "sector, and back"
add_row "sector, and back: write" "$(pmem-io pwrite --direct "/dev/$disk" --length 4096 2>&1)"
report_rows
