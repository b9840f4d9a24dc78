#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On eADR and e820 memory, region and disk have the recorded durability attributes, and fsync and MAP_SYNC work.
# compare
# vm: eadr
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/flush-count.sh"

plan 13
load_driver_anew
record_durability "e820" "$(e820_disk)" "$(region_of_namespace "$(e820_ns)")"
region=$(labelled_region)
for mode in fsdax raw sector; do
	disk=$(labelled_disk -m $mode -s 64M)
	record_durability "NFIT, caches saved, $mode" "$disk" "$region"
	[ $mode != fsdax ] || is "NFIT: caches are not written back for DAX" "$(cat "/sys/block/$disk/dax/write_cache")" 0
	[ $mode = fsdax ] || continue
	make_fs ext4 "$disk"
	mount_dax "$disk"
	truncate -s 1M $MNT/file
	check "stored to and synced" pmem-io map-write --durable fsync $MNT/file
	check "MAP_SYNC" pmem-io map-write --sync --durable flush $MNT/file --seed 2
	umount $MNT
done
record_result "deep_flush of NFIT, written 1" sh -c "env echo 1 2>&1 >$ND/$region/deep_flush | sed 's/.*: //'"
is "persistence_domain" "$(cat "$ND/$region/persistence_domain")" cpu_cache
