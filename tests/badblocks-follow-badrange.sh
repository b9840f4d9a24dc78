#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What the bus learns of errors while the driver is bound reaches the lists of disk and region, in every mode: inside, across and
# outside of the data, again and again, with somebody waiting.
# compare
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"
. "$(dirname "$0")/lib/provider.sh"

lists() {
	add_row "$1" "disk $(badblocks_of "$DISK" 2>/dev/null), region $(badblocks_of region0)"
}

# learns NAME OFFSET+LENGTH,…: of the whole range.
learns() {
	provider bad "$2"
	lists "$name: $1"
}

# of NAME: DISK is there.
of() {
	name=$1
	lists "$name: at first"
	learns "the first sector of the memory" 0+512
	learns "info block and page map" 4K+4K,1M+512
	learns "the data" 8M+4K
	learns "joins it" 8196K+4K
	learns "a part of it again" 8M+512
	learns "two at once" 9M+1K,10M+4K
	learns "an odd byte" 11534337+1
	learns "the last sector" $(((64 << 20) - 512))+512
	learns "nothing" ""
	lists "$name: at last"
	add_row "$name: a waiter" "$(pmem-io poll "/sys/block/$DISK/badblocks" --run "echo 12M+512 >/sys/module/pmem_provider/parameters/bad" 2>&1 | wc -l)"
	add_row "$name: a read of it" "$(pmem-io pread --direct "/dev/$DISK" --offset 1M --length 16M 2>&1)"
	add_row "$name: ndctl list -M" "$(ndctl list -RM | jq -c '.[0] | {badblock_count}')"
	add_row "$name: a notice in the middle of I/O" "$(
		fio --name=job --filename="/dev/$DISK" --rw=randread --bs=4k --direct=1 --size=1M --offset=24M --time_based --runtime=2 --minimal >/dev/null 2>&1 &
		for offset in 40 41 42 43 44; do
			provider bad "${offset}M+4K"
		done
		wait "$!" && echo "no error")"
	lists "$name: after that"
	provider_cleanup
}

provide
of "raw"
provide
DISK=$(make_fsdax "$NAMESPACE" mem)
of "fsdax"
provide
DISK=$(make_fsdax "$NAMESPACE" dev)
of "fsdax, map on the device"
provide
DISK=$(make_namespace -e "$NAMESPACE" -m sector | jq -r .blockdev)
of "sector"
provide bad=0+64M
lists "all of it is bad"
add_row "all of it is bad: a read" "$(pmem-io pread --direct "/dev/$DISK" --length 4096 2>&1)"
provider_cleanup
provide unarmed=1
add_row "unarmed" "$(cat "/sys/block/$DISK/ro") $(pmem-io pwrite --direct "/dev/$DISK" --length 4096 2>&1)"
provider bad 1M+4K
lists "unarmed: an error"
report_rows
