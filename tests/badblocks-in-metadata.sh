#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Errors in the metadata of a namespace are listed and repaired, and the namespace binds or fails to bind, as recorded.
#
# Metadata: info blocks, struct pages on the device, and the map and log of sector mode.
# compare
# vm: provider
# expect-splat: at nsio_rw_bytes+
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"
. "$(dirname "$0")/lib/provider.sh"

# add_state_row NAME: the disk and its badblocks, and badblocks of the region.
add_state_row() {
	disk=$(disk_of "$NAMESPACE") || disk=none
	add_row "$1" "disk ${disk%%[0-9]*}: $(badblocks_of "$disk" 2>/dev/null); region: $(badblocks_of region0)"
}

# rebind_namespace NAME: disables and enables the namespace.
rebind_namespace() {
	ndctl disable-namespace "$NAMESPACE" >/dev/null 2>&1
	ndctl enable-namespace "$NAMESPACE" >/dev/null 2>&1
	settle
	add_state_row "$1"
}

# make_error NAME RANGE: adds an error while the namespace is bound, and rebinds it twice.
make_error() {
	provider bad "$2"
	settle
	add_state_row "$1: while bound"
	rebind_namespace "$1: bound anew"
	rebind_namespace "$1: and again"
}

# make_mode MODE OPTIONS…: makes a namespace on new memory.
make_mode() {
	provider_cleanup
	provide dimm=0 pages=0
	make_namespace -e "$NAMESPACE" -m "$@" >/dev/null
	disk=$(disk_of "$NAMESPACE")
	pmem-io fill --direct --length 1M "/dev/$disk"
}

provide dimm=0 pages=0
for map in mem dev; do
	make_mode fsdax -M $map
	make_error "fsdax, map=$map: the info block" 4K+512
	add_result_row "fsdax, map=$map: its data" pmem-io verify --direct --length 1M "/dev/$disk"
	make_mode fsdax -M $map
	make_error "fsdax, map=$map: behind the info block" 64K+4K
	add_result_row "fsdax, map=$map: data then" pmem-io verify --direct --length 1M "/dev/$disk"
done
make_mode sector -l 4096
make_error "sector: the first info block" 4K+512
add_result_row "sector: its data" pmem-io verify --direct --length 1M "/dev/$disk"
make_mode sector -l 4096
make_error "sector: the table" $((63 << 20))+512
add_result_row "sector: data then" pmem-io verify --direct --length 1M "/dev/$disk"
add_result_row "sector: all of it written" pmem-io fill --direct "/dev/$disk"
add_state_row "sector: and then"
make_mode sector -l 4096
make_error "sector: the last info block" $(((64 << 20) - 4096))+512
add_result_row "sector: data, still" pmem-io verify --direct --length 1M "/dev/$disk"
report_rows
