#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An info block whose start_pad or end_trunc is larger than its namespace fails, and nothing is cleared in other namespaces.
#
# libnvdimm takes it for valid, because the rest of the size wraps around.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# try_block WHAT OFFSET HEX: binds with these bytes in the info block: 4 subtests.
try_block() {
	info_block_restore /tmp/block "$2" "$3"
	# In the other namespace, where the memmap would be.
	provide size=$((128 << 20)) nr_regions=2 pages=1 keep=1 bad="$(((64 << 20) + start))+4K"
	is "$1: there is one disk" "$(find /sys/block -name 'pmem*' | wc -l)" 1
	is "$1: no claim" "$(grep -c "$NAMESPACE" /proc/iomem)" 0
	other=$(disk_of "$(namespaces pmem_provider | sed -n 2p)")
	is "$1: the bad block of the other namespace" "$(badblocks_of "$other")" "$((start / 512))+8"
	unload_driver
	load_driver
	is "$1: and when it is bound again" "$(badblocks_of "$other")" "$((start / 512))+8"
	provider_cleanup
}

need xxd od
plan 16
provide size=$((128 << 20)) nr_regions=2 pages=1
make_fsdax "$NAMESPACE" dev >/dev/null
provider_cleanup
info_block_save /tmp/block

# The memmap would begin 8K behind that.
start=$(((4 << 20) + (512 << 10)))
try_block "68M of padding in front" 76 00004004
try_block "126M of padding behind" 80 0000e007
# Its end wraps around.
try_block "4G - 2M of padding behind" 80 0000e0ff
# As much as the namespace has: libnvdimm itself rejects it.
try_block "64M of padding in front" 76 00000004
info_block_restore /tmp/block
