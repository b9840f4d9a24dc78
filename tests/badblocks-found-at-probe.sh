#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Errors from before the probe are in badblocks from the start, limited to those of the namespace.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 5
# Two namespaces of 32M. The errors: one sector, a page, 8K across the border of the namespaces, an odd byte, the very
# end.
provide nr_regions=2 bad=1M+512,2M+4K,0x1fff000+8K,40M+1,0x3fffe00+512
second=$(disk_of "$(namespaces pmem_provider | sed -n 2p)")

is "the first namespace's errors" "$(badblocks_of "$DISK")" "2048+1 4096+8 65528+8"
is "the second namespace's errors" "$(badblocks_of "$second")" "0+8 16384+1 65535+1"
rebind "$NAMESPACE"
is "the same after a rebind" "$(badblocks_of "$DISK")" "2048+1 4096+8 65528+8"
# It replaces the length of the entry with the same start (badrange_add).
if [ "$DRIVER" = rust_pmem ]; then
	provider bad 8M+4K
	provider bad 8M+512
	rebind "$NAMESPACE"
	is "a shorter report of the same place" "$(badblocks_of "$DISK")" "2048+1 4096+8 16384+8 65528+8"
else
	skip "a shorter report of the same place" "C forgets the rest at the next bind"
fi
check_fails "reading one of them" read_sectors "$DISK" 2048
