#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Errors in what a namespace keeps for itself (info blocks, page map on the device, table and log of sector mode): who lists them, what
# becomes of the namespace, what heals them.
# compare
# vm: --bare --append memmap=128M$512M
# expect-splat: nsio_rw_bytes
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	umount $MNT 2>/dev/null
	provider_cleanup
}

# state NAME: the disk and what is listed for it, what is listed for the region.
state() {
	disk=$(disk_of "$NAMESPACE") || disk=none
	add_row "$1" "disk ${disk%%[0-9]*}: $(badblocks_of "$disk" 2>/dev/null); region: $(badblocks_of region0)"
}

# anew NAME: the namespace is bound again.
anew() {
	ndctl disable-namespace "$NAMESPACE" >/dev/null 2>&1
	ndctl enable-namespace "$NAMESPACE" >/dev/null 2>&1
	settle
	state "$1"
}

# breaks NAME RANGE: an error in the memory while the namespace is bound, then at the next binding.
breaks() {
	provider bad "$2"
	settle
	state "$1: while bound"
	anew "$1: bound anew"
	anew "$1: and again"
}

# made MODE OPTIONS…: new memory, and a namespace on it.
made() {
	provider_cleanup
	provide dimm=0 pages=0
	make_namespace -e "$NAMESPACE" -m "$@" >/dev/null
	disk=$(disk_of "$NAMESPACE")
	pmem-io fill --direct --length 1M "/dev/$disk"
}

provide dimm=0 pages=0
for map in mem dev; do
	made fsdax -M $map
	breaks "fsdax, map=$map: the info block" 4K+512
	add_result_row "fsdax, map=$map: its data" pmem-io verify --direct --length 1M "/dev/$disk"
	made fsdax -M $map
	breaks "fsdax, map=$map: behind the info block" 64K+4K
	add_result_row "fsdax, map=$map: data then" pmem-io verify --direct --length 1M "/dev/$disk"
done
made sector -l 4096
breaks "sector: the first info block" 4K+512
add_result_row "sector: its data" pmem-io verify --direct --length 1M "/dev/$disk"
made sector -l 4096
breaks "sector: the table" $((63 << 20))+512
add_result_row "sector: data then" pmem-io verify --direct --length 1M "/dev/$disk"
add_result_row "sector: all of it written" pmem-io fill --direct "/dev/$disk"
state "sector: and then"
made sector -l 4096
breaks "sector: the last info block" $(((64 << 20) - 4096))+512
add_result_row "sector: data, still" pmem-io verify --direct --length 1M "/dev/$disk"
report_rows
