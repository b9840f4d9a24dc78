#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks in pages that are mapped as parts of a huge one cost these pages alone, and repairs make it huge again.
# kernel: transparent_hugepage
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/dax-faults.sh"

cleanup() {
	untrace_faults
	umount $MNT 2>/dev/null
}

# listed_sectors: how many sectors of the disk are listed.
listed_sectors() {
	awk '{ sum += $2 } END { print sum + 0 }' "/sys/block/$disk/badblocks"
}

# shellcheck disable=SC2016 # for awk and that shell
# fail_page SECTORS: prints commands that inject a machine check at $address, and wait until so many sectors are listed, at most a
# minute.
fail_page() {
	printf 'host mce %d 12; i=0; until awk "{ sum += \$2 } END { exit sum != %d }" /sys/block/%s/badblocks || ' "$address" "$1" "$disk"
	printf '[ $((i += 1)) -gt 600 ]; do sleep 0.1; done'
}

# is_repaired ROW OFFSET FAULTS [BAD]: 2 rows: a write repairs the page; then the file is mapped by so many faults, and what is still
# bad is that.
is_repaired() {
	if [ "$DRIVER" = rust_pmem ]; then
		check "$fs_type: $1 is written over" write_over $MNT/file "$2"
		count_faults >/dev/null
		left=$(pmem-io map-verify $MNT/file) || :
		is "$fs_type: $1: then it is mapped" "$(count_faults)$left" "$3${4:-}"
	else
		skip "$fs_type: $1 is written over" "with C, a bus that can't clear poison repairs nothing"
		skip "$fs_type: $1: then it is mapped" "with C, a bus that can't clear poison repairs nothing"
	fi
}

# test_huge_page TYPE DISK: 13 rows.
test_huge_page() {
	fs_type=$1 disk=$2
	[ "$DRIVER" != rust_pmem ] || echo 1 >"/sys/block/$disk/errors/overwrite_heals"
	make_fs "$fs_type" "$disk"
	mount_dax "$disk"
	fallocate -l 4M $MNT/file
	pmem-io map-write $MNT/file
	# Page 612, in the second huge page.
	address=$(($(pmem-io phys $MNT/file --offset 2448K)))
	trace_faults
	pmem-io map $MNT/file store "run=$(fail_page 8)" load >/tmp/map || :
	is "$fs_type: it was mapped by huge pages" "$(count_faults)" "2 of 2 MiB, 0 of 4 KiB"
	sed 's/^/# /' /tmp/map
	is "$fs_type: one page is listed" "$(listed_sectors)" 8
	is "$fs_type: a new mapping loses it alone" "$(pmem-io map-read $MNT/file)" "page 612 code 4 lsb 12 address 0x264000"
	check_fails "$fs_type: a read of it" pmem-io pread $MNT/file --offset 2448K --length 4K
	check "$fs_type: all others are there" pmem-io verify $MNT/file --length 2448K
	check "$fs_type: also behind it" pmem-io verify $MNT/file --offset 2452K --length 1644K

	# Page 700 of the same huge page.
	address=$(($(pmem-io phys $MNT/file --offset 2800K)))
	sh -c "$(fail_page 16)"
	is "$fs_type: a new mapping loses a second page as well" "$(pmem-io map-read $MNT/file)" \
		"page 612 code 4 lsb 12 address 0x264000
page 700 code 4 lsb 12 address 0x2bc000"
	check "$fs_type: those between them are there" pmem-io verify $MNT/file --offset 2452K --length 348K
	check "$fs_type: also behind the second one" pmem-io verify $MNT/file --offset 2804K --length 1292K
	is_repaired "the first page" 2448K "1 of 2 MiB, 511 of 4 KiB" \
		"page 700 code 4 lsb 12 address 0x2bc000"
	is_repaired "the second page" 2800K "2 of 2 MiB, 0 of 4 KiB"
	untrace_faults
	umount $MNT
}

[ "$DRIVER:$(uname -m)" != nd_pmem:aarch64 ] || skip_all "C lists no memory error that firmware reports"
need pmem-io jq
plan 26
load_driver
fresh_labels
# C repairs nothing, so each file system has a disk of its own.
for type in ext4 xfs; do
	case $type in
	ext4) size=160M ;;
	# It takes no less than 300 MB.
	xfs) size=320M ;;
	esac
	test_huge_page $type "$(make_namespace -r "$(labelled_region)" -m fsdax -M mem -s "$size" | jq -r .blockdev)"
done
