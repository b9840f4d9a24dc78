#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# badblocks has the errors of its namespace, and no others, from before the probe and later; only these sectors can't be read.
#
# An error that comes, and one that is repaired, wakes pollers. In an fsdax namespace, sectors count from the start of the
# data, and errors of the metadata are omitted.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

need pmem-io
plan 21

# ---- from before the probe ----

# Two namespaces of 32M. The errors: one sector, a page, 8K across the border of the namespaces, an odd byte, the very
# end.
provide pages=1 nr_regions=2 bad=1M+512,2M+4K,0x1fff000+8K,40M+1,0x3fffe00+512
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
blkdiscard -f -z "/dev/$DISK"
blkdiscard -f -z "/dev/$second"

# ---- later ----

list=/sys/block/$DISK/badblocks
is "when an error comes" "$(pmem-io poll "$list" --run "echo 1M+4K >/sys/module/pmem_provider/parameters/bad")" "2048 8"
write="pmem-io pwrite --direct --length 4K /dev/$DISK --offset"
check "when it is repaired" pmem-io poll "$list" --run "$write 1M"
is_empty "and there is none" badblocks_of "$DISK"
tap_run pmem-io poll "$list" --timeout 1 --run "$write 2M"
# shellcheck disable=SC2154 # tap_run sets it
is "but not by a write that repairs nothing" "$tap_status" 3

pattern neigh_1 1 | write_sectors "$DISK" 2047 1
pattern neigh_2 8 | write_sectors "$DISK" 2049 8
provider bad 1M+512
check_fails "the sector" read_sectors "$DISK" 2048
check_fails "the page that it is in" read_sectors "$DISK" 2048 8
check_fails "a megabyte that ends with it" read_sectors "$DISK" 1 2048
check_fails "a megabyte that begins with it" read_sectors "$DISK" 2048 2048
is "the sector before" "$(read_sectors "$DISK" 2047 | md5sum)" "$(pattern neigh_1 1 | md5sum)"
is "the sectors behind" "$(read_sectors "$DISK" 2049 8 | md5sum)" "$(pattern neigh_2 8 | md5sum)"
check "a megabyte before" read_sectors "$DISK" 0 2048
is "and nothing was repaired by that" "$(badblocks_of "$DISK")" "2048+1"
blkdiscard -f -z -o 1M -l 4K "/dev/$DISK"

# ---- relative to the data ----

disk=$(make_fsdax "$NAMESPACE" dev)
start=$((32 * 2048 - $(cat "/sys/block/$disk/size")))
edge=$((start * 512))
unload_driver

provider bad "$((edge + 1048576))+512,$((32 * 1048576 - 4096))+8K"
load_driver
is "errors that were there before" "$(badblocks_of "$disk")" "2048+1 $((32 * 2048 - start - 8))+8"
# Not before a probe: libnvdimm would try to clear them first, and warn because they are not mapped.
provider bad "1M+4K,$((edge - 4096))+8K,$((edge + 2097152))+1K"
is "with some that came later" "$(badblocks_of "$disk")" "0+8 2048+1 4096+2 $((32 * 2048 - start - 8))+8"
check_fails "reading what is bad" read_sectors "$disk" 4097
check "reading what is not" read_sectors "$disk" 4098
