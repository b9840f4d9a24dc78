#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl doctor names exactly the planted cause and its effect, and finds nothing on a healthy mount and file.
#
# On a healthy mount, huge pages are really mapped.
# kernel: transparent_hugepage
# vm: labels-virtio
# timeout: 400
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"

config=/boot/config-$(uname -r)
trace=/sys/kernel/tracing

cleanup() {
	umount "$MNT" 2>/dev/null
	dmsetup remove --retry planted 2>/dev/null
	rm -f "$config"
	wipefs -aq "/dev/$disk" 2>/dev/null
	[ ! -d "/sys/module/$DRIVER" ] || unload_driver
	release_dax_devices
}

# list_findings TARGET: the causes that it finds, each with its place and effect.
list_findings() {
	# 1: something is found; 4: something cannot be found out.
	pmemctl doctor --json "$@" >/tmp/doctor.json || case $? in 1 | 4) ;; *) return 1 ;; esac
	jq -r '.findings[] | "\(.where) \(.cause) \(.prevents)"' /tmp/doctor.json
}

# finds_nothing TARGET: nothing is wrong, and all could be found out.
finds_nothing() {
	pmemctl doctor --json "$@" >/tmp/doctor.json
}

# show_probes: the results of the last run's probes: path, DAX, MAP_SYNC, huge pages.
show_probes() {
	jq -r '.probes[] | "\(.path) \(.dax) \(.map_sync) \(.huge)"' /tmp/doctor.json
}

# count_faults EVENT: the number of successful faults of stores with MAP_SYNC.
count_faults() {
	grep -c "$1: .*NEEDDSYNC" "$trace/trace" || :
}

# make_partition START: the only partition of the disk.
make_partition() {
	wipefs -aq "/dev/$disk"
	printf 'start=%s\n' "$1" | sfdisk -q --no-tell-kernel "/dev/$disk" 2>/dev/null
	partx -u "/dev/$disk"
	wait_for 60 test -b "/dev/${disk}p1"
}

need sfdisk partx wipefs dmsetup jq blkid dumpe2fs xfs_info filefrag
plan 52
hold_freed_dax_devices
load_driver
disk=

# ---- the provider: first, because nd_pmem grants MAP_SYNC there after other memory was unbound ----

virtio=$(raw_disk "$(virtio_ns)")
make_fs ext4 "$virtio"
mount_dax "$virtio"
is "1: virtio-pmem's flush" "$(list_findings "$MNT" | cut -d ' ' -f 2-)" "asynchronous-flush map-sync"
check_schema doctor /tmp/doctor.json
is "virtio-pmem: MAP_SYNC is really refused" "$(show_probes | cut -d ' ' -f 3)" false
umount "$MNT"

disk=$(labelled_disk -m fsdax -M dev -s 448M)
device=$(device_of_disk "$disk")
namespace=$(cat "$ND/$device/namespace")
mkdir -p "$MNT"

# ---- healthy ----

status=0
pmemctl doctor "$MNT/none" >/dev/null 2>&1 || status=$?
is "a file that is not there: status 4, as nothing is known" "$status" 4

for type in ext4 xfs; do
	make_fs $type "$disk"
	mount_dax "$disk"
	fallocate -l 8M "$MNT/file"
	echo 1 >$trace/events/fs_dax/enable
	echo >$trace/trace
	check "$type, healthy: status 0" pmemctl doctor "$MNT"
	is "$type: the kernel has mapped huge pages for it" "$(count_faults dax_pmd_fault_done)" 2
	is "$type: and no other" "$(count_faults dax_pte_fault_done)" 0
	echo 0 >$trace/events/fs_dax/enable
	check "$type: nothing is found" finds_nothing "$MNT"
	is "$type: what it says" "$(show_probes)" "$MNT true true true"
	check "$type: nothing of a file" finds_nothing "$MNT/file"
	is "$type: which says the same" "$(show_probes)" "$MNT/file true true true"
	check "$type: nor of the disk" finds_nothing "/dev/$disk"
	is "$type: nothing is left there" "$(find "$MNT" -type f | wc -l)" 1
	umount "$MNT"
done

# ---- bad blocks ----

make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 4M "$MNT/file"
sync -f "$MNT"
echo "$(sector_of "$MNT/file") 8" >"/sys/block/$disk/badblocks"
is "a bad block of a file" "$(list_findings "$MNT/file")" "$MNT/file bad-blocks reads"
is "of the disk" "$(list_findings --no-probe "/dev/$disk")" "$disk bad-blocks reads"
mount -t tmpfs none "$MNT"
status=0
pmemctl doctor --json "/dev/$disk" >/tmp/doctor.json 2>/dev/null || status=$?
is "a mount that is covered: status 4" "$status" 4
is "the mount is unknown" "$(jq -r '.unknown[].where' /tmp/doctor.json)" "$MNT"
is "the bad block is found" "$(jq -r '.findings[] | "\(.where) \(.cause)"' /tmp/doctor.json)" "$disk bad-blocks"
umount "$MNT"
umount "$MNT"
forget_errors "$disk"
[ "$DRIVER" = rust_pmem ] || rebind "$device"

# ---- the file, the mount, the file system ----

make_fs ext4 "$disk"
mount "/dev/$disk" "$MNT"
is "2: a mount that leaves DAX to files without the flag" "$(list_findings "$MNT")" "$MNT no-dax-flag dax"
fallocate -l 4M "$MNT/file"
cat "$MNT/file" >/dev/null
is "3: such a file" "$(list_findings "$MNT/file")" "$MNT/file no-dax-flag dax"
exec 3<"$MNT/file"
xfs_io -c 'chattr +x' "$MNT/file"
is "4: a flag that does not count yet" "$(list_findings "$MNT/file")" "$MNT/file dax-flag-not-yet dax"
exec 3<&-
check "closed, it counts" finds_nothing "$MNT/file"
umount "$MNT"
mount -o dax=never "/dev/$disk" "$MNT"
is "5: dax=never" "$(list_findings "$MNT")" "$MNT mount-option dax"
sh -c "$(jq -r '.findings[0].command' /tmp/doctor.json)"
check "dax=never: which the command mends" finds_nothing "$MNT"
printf x >"$MNT/small"
is "6: a file of less than a huge page" "$(list_findings "$MNT/small")" "$MNT/small file-size huge-mappings"
# Interleaves two files in pieces of 256 KiB.
for piece in $(seq 0 11); do
	fallocate -o $((piece << 18)) -l 256K "$MNT/torn"
	fallocate -o $((piece << 18)) -l 256K "$MNT/other"
done
is "7: a file in pieces" "$(list_findings "$MNT/torn")" "$MNT/torn file-extents huge-mappings"
umount "$MNT"
mount -o data=journal "/dev/$disk" "$MNT"
is "8: data=journal" "$(list_findings "$MNT")" "$MNT data-journal dax"
umount "$MNT"
make_fs ext4 "$disk" -b 1024
is "9: blocks of 1024 bytes" "$(list_findings "/dev/$disk")" "$disk block-size dax"
make_fs ext4 "$disk" -O inline_data
is "10: ext4's inline data" "$(list_findings "/dev/$disk")" "$disk inline-data dax"

# ---- the partition, the volume ----

make_partition 2049
make_fs ext4 "${disk}p1"
is "11: a partition that begins within a page" "$(list_findings "/dev/${disk}p1")" "${disk}p1 partition-alignment dax"
make_partition 4104
make_fs ext4 "${disk}p1"
mount_dax "${disk}p1"
is "12: one that begins within 2 MiB" "$(list_findings "$MNT")" "${disk}p1 partition-alignment huge-mappings"
is "within 2 MiB: huge pages are really not mapped" "$(show_probes)" "$MNT true true false"
umount "$MNT"
make_partition 4096
make_fs xfs "${disk}p1"
is "13: XFS with reflink on a partition" "$(list_findings "/dev/$disk")" "${disk}p1 reflink-on-partition dax"
check_fails "reflink on a partition: dax=always is really refused" mount_dax "${disk}p1"
wipefs -aq "/dev/${disk}p1" "/dev/$disk"
blockdev --rereadpt "/dev/$disk"
modprobe dm-crypt
dmsetup create planted --table "0 204800 crypt aes-xts-plain64 $(printf '%064d' 7) 0 /dev/$disk 0"
dmsetup mknodes
is "14: a target without DAX" "$(list_findings "/dev/$disk")" "planted target-without-dax dax"
dmsetup remove --retry planted

# ---- the namespace ----

echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
is "15: no driver" "$(list_findings "$namespace" | cut -d ' ' -f 2-)" "no-driver all"
sh -c "$(jq -r '.findings[0].command' /tmp/doctor.json)" >/dev/null 2>&1
settle
check "no driver: which the command mends" finds_nothing "$namespace"
is "16: raw mode" "$(list_findings "/dev/$(raw_disk "$(plain_namespace)")" | cut -d ' ' -f 2-)" "raw-mode dax"
fresh_labels
ndctl create-namespace -r "$(labelled_region)" -m devdax -a 4K -s 96M >/dev/null
is "17: device DAX that is aligned to pages" "$(list_findings "$(ndctl list -N -r "$(labelled_region)" -m devdax | jq -r '.[0].dev')" | cut -d ' ' -f 2-)" "namespace-alignment huge-mappings"
disk=$(labelled_disk -m sector -l 4096 -s 64M)
is "18: sector mode" "$(list_findings "/dev/$disk" | cut -d ' ' -f 2-)" "sector-mode dax"

# ---- the kernel, the machine ----

if [ -n "${KERNEL:-}" ] && [ -e /proc/config.gz ]; then
	skip "19: a kernel without CONFIG_FS_DAX" "the kernel contains its configuration"
else
	mkdir -p /boot
	printf 'CONFIG_ZONE_DEVICE=y\nCONFIG_TRANSPARENT_HUGEPAGE=y\n# CONFIG_FS_DAX is not set\n' >"$config"
	is "19: a kernel without CONFIG_FS_DAX" "$(list_findings "/dev/$disk" | head -n 1)" "kernel kernel-configuration dax"
	rm "$config"
fi
is "20: what is on other memory" "$(list_findings /proc | cut -d ' ' -f 2-)" "not-persistent-memory all"
unload_driver
echo e820_pmem >/sys/bus/platform/drivers/e820_pmem/unbind
modprobe -r nd_e820
is "21: a provider that is not loaded" "$(list_findings | grep ^nd_e820)" "nd_e820 no-provider all"
