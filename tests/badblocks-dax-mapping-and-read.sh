#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A mapping and a read of a DAX file fail on the bad page only.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

need pmem-io
plan 9
provide pages=1
mkfs.ext4 -q -b 4096 "/dev/$DISK"
mount_dax "$DISK"
truncate -s 4M $MNT/file
pmem-io fill $MNT/file
if kernel_has copy_mc_to_user; then
	# As if a machine check came in its middle.
	provider fail "copy_mc_to_user 4096"
	check_fails "read(2) copies so that it survives a machine check" pmem-io pread $MNT/file --length 4K
	provider fail ""
else
	skip "read(2) copies so that it survives a machine check" "the kernel has no such copy"
fi
address=$(pmem-io phys $MNT/file --offset 400K)
provider bad "$((address - MEMORY))+512"

# Code 4: BUS_MCEERR_AR.
is "a mapping: one page is refused" "$(pmem-io map-read $MNT/file)" "page 100 code 4 lsb 12 address 0x64000"
check_fails "a read that begins with it" pmem-io pread $MNT/file --offset 400K --length 8K
check "a read over it gives nothing of it" reads_up_to 409600 $MNT/file
check "what is before" pmem-io verify $MNT/file --length 400K
check "what is behind" pmem-io verify $MNT/file --offset 404K --length 3692K
check_fails "a write through a mapping" pmem-io map-write $MNT/file --offset 400K --length 4K
check "the file can be written elsewhere" pmem-io fill $MNT/file --offset 1M --length 1M --seed 2
check "by a mapping as well" pmem-io map-write $MNT/file --offset 404K --length 8K
