#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Errors that the bus reports while the driver is bound reach badblocks of the disk and the region in every mode.
#
# The errors are inside, across and outside of the data area, and some come twice or while a process polls.
# compare
# vm: provider 2
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"
. "$(dirname "$0")/lib/busy.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	kill "$fio_pid" 2>/dev/null
	wait
	provider_cleanup
}

add_badblocks_row() {
	add_row "$1" "disk $(badblocks_of "$DISK" 2>/dev/null), region $(badblocks_of region0)"
}

# report_error NAME OFFSET+LENGTH,…: OFFSET counts from the start of the memory.
report_error() {
	provider bad "$2"
	add_badblocks_row "$name: $1"
}

# test_reports NAME: needs DISK.
test_reports() {
	name=$1
	add_badblocks_row "$name: at first"
	report_error "the first sector of the memory" 0+512
	report_error "info block and memmap" 4K+4K,1M+512
	report_error "the data" 8M+4K
	report_error "joins it" 8196K+4K
	report_error "a part of it again" 8M+512
	report_error "two at once" 9M+1K,10M+4K
	report_error "an odd byte" 11534337+1
	report_error "the last sector" $(((64 << 20) - 512))+512
	report_error "nothing" ""
	add_badblocks_row "$name: at last"
	add_row "$name: a waiter" "$(pmem-io poll "/sys/block/$DISK/badblocks" --run "echo 12M+512 >/sys/module/pmem_provider/parameters/bad" 2>&1 | wc -l)"
	add_row "$name: a read of it" "$(pmem-io pread --direct "/dev/$DISK" --offset 1M --length 16M 2>&1)"
	add_row "$name: ndctl list -M" "$(ndctl list -RM | jq -c '.[0] | {badblock_count}')"
	start_fio "/dev/$DISK" --filename="/dev/$DISK" --rw=randread --direct=1 --size=1M --offset=24M --time_based --runtime=900 \
		--output-format=json
	for offset in 40 41 42 43 44; do
		provider bad "${offset}M+4K"
	done
	fio_has_not_ended
	stop_fio
	add_row "$name: a notice in the middle of I/O" "$(fio_jobs '"error \(.error)"')"
	add_badblocks_row "$name: after that"
	provider_cleanup
}

provide
test_reports "raw"
provide
DISK=$(make_fsdax "$NAMESPACE" mem)
test_reports "fsdax"
provide
DISK=$(make_fsdax "$NAMESPACE" dev)
test_reports "fsdax, map on the device"
provide
DISK=$(make_namespace -e "$NAMESPACE" -m sector | jq -r .blockdev)
test_reports "sector"
provide bad=0+64M
add_badblocks_row "all of it is bad"
add_row "all of it is bad: a read" "$(pmem-io pread --direct "/dev/$DISK" --length 4096 2>&1)"
provider_cleanup
provide unarmed=1
add_row "unarmed" "$(cat "/sys/block/$DISK/ro") $(pmem-io pwrite --direct "/dev/$DISK" --length 4096 2>&1)"
provider bad 1M+4K
add_badblocks_row "unarmed: an error"
report_rows
