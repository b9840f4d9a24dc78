#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Sector mode supports each sector size of BTT, also with metadata beside the data, and refuses others.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# show_limits: the queue limits of the disk on one line.
show_limits() {
	(cd "/sys/block/$1" && paste -d ' ' size queue/logical_block_size queue/physical_block_size queue/minimum_io_size queue/write_cache queue/fua \
		queue/dax ro)
}

# show_integrity: the format of the metadata beside a sector.
show_integrity() {
	(cd "/sys/block/$1/integrity" && paste -d ' ' format tag_size protection_interval_bytes read_verify write_generate)
}

# test_size SIZE DATA: sectors of SIZE bytes, of which DATA bytes are data.
test_size() {
	record_result "$1: made" sh -c "ndctl create-namespace -r $region -m sector -s 32M -l $1 | jq -r '\"\\(.mode) \\(.size) \\(.sector_size) \\(.blockdev)\"'"
	settle
	disk=pmem${region#region}s
	record "$1: limits" "$(show_limits "$disk")"
	record "$1: integrity" "$(show_integrity "$disk")"
	check "$1: written" pmem-io fill --direct --length 2M "/dev/$disk"
	check "$1: one sector is overwritten" pmem-io fill --direct --offset 64K --length "$2" --block "$2" "/dev/$disk" --seed 2
	last=$(($(blockdev --getsize64 "/dev/$disk") - $2))
	check "$1: and the last one" pmem-io fill --direct --offset $last --length "$2" --block "$2" "/dev/$disk" --seed 3
	record_result "$1: less than a sector" pmem-io pwrite --direct --offset 64K --length $(($2 / 2)) "/dev/$disk"
	ndctl disable-namespace "$namespace" >/dev/null 2>&1
	record_result "$1: ndctl's check of the table" ndctl check-namespace "$namespace"
	ndctl enable-namespace "$namespace" >/dev/null 2>&1
	settle
	check "$1: read" pmem-io verify --direct --length 64K "/dev/$disk"
	check "$1: the sector that was overwritten" pmem-io verify --direct --offset 64K --length "$2" "/dev/$disk" --seed 2
	check "$1: and the last one, read" pmem-io verify --direct --offset $last --length "$2" "/dev/$disk" --seed 3
	ndctl destroy-namespace -f "$namespace" >/dev/null 2>&1
}

sizes="512 520 528 4096 4104 4160 4224"
plan 85
load_driver
region=$(labelled_region)
fresh_labels
namespace=namespace${region#region}.0
is "the sizes that are known" "$(tr -d "[]" <"$ND/btt${region#region}.0/sector_size" | xargs)" "$sizes"
for size in $sizes; do
	test_size "$size" $((size / 512 * 512))
done
for size in 0 256 1024 2048 8192 65536; do
	record_result "$size is refused" ndctl create-namespace -r "$region" -m sector -s 32M -l $size
done
is_empty "and leaves nothing" ndctl list -N -r "$region"
