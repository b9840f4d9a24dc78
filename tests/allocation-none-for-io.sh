#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A direct read, a write and a repair allocate no memory, so that none of them fails for want of it.
#
# Reclaim may wait for any of them.
# debug
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"

need_faults
plan 25
for bus in "dimm=1" "dimm=0"; do
	# shellcheck disable=SC2086 # parameters
	provide size=$((16 << 20)) $bus
	file=/dev/$DISK badblocks=/sys/block/$DISK/badblocks
	zeros=$(head -c 16384 /dev/zero | checksum)
	check_faults "$bus: a read of the list, which needs memory" "ok [0-9a-f]+|$ERRORS" "read=$badblocks"
	check "$bus: zeroed" dd if=/dev/zero of="$file" bs=64k seek=16 count=1 oflag=direct
	check_no_faults "$bus: read" "ok $zeros" "pread=$file=1M=16K"
	check_no_faults "$bus: write" "ok 16384" "pwrite=$file=1M=16K"
	check_no_faults "$bus: repair" "ok 4096; " "pwrite=$file=2M=4K" \
		--before "write=/sys/module/pmem_provider/parameters/bad=2M+4K" --show "$badblocks"
	is_empty "$bus: nothing is bad" cat "$badblocks"
	check "$bus: a read then" read_sectors "$DISK" 4096 8
	# Two pages in the middle of one error: each splits it.
	provider bad 3M+64K
	fail_allocations Y
	for page in 2 6; do
		check "$bus: repair of page $page of an error, without memory" \
			dd if=/dev/zero of="$file" bs=4k seek=$((768 + page)) count=1 oflag=direct conv=notrunc
	done
	stop_faults
	check "$bus: allocations have failed meanwhile" test "$FAULTS" -gt 0
	is "$bus: the rest of that error is listed" "$(badblocks_of "$DISK")" "6144+16 6168+24 6200+72"
	provider_cleanup
done
# The BTT copies the data to a free block, and writes an entry of its log and of its map.
provide size=$((32 << 20)) pages=1 dimm=0
file=/dev/$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)
check "sector mode: zeroed" dd if=/dev/zero of="$file" bs=64k seek=16 count=1 oflag=direct
check_no_faults "sector mode: read" "ok $zeros" "pread=$file=1M=16K"
check_no_faults "sector mode: write" "ok 16384" "pwrite=$file=1M=16K"
