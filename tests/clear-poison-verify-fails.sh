#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On a bus without commands, memory that does not keep data written over an error stays listed, and the write fails.
#
# There is no memory at all behind this disk, at 2G.
# vm: edges
. "$(dirname "$0")/lib/test.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "C takes the entry off without a look"
plan 7
load_driver
for namespace in $(namespaces e820); do
	[ $(($(cat "$ND/$namespace/resource"))) -ne $((2 << 30)) ] || break
done
disk=$(raw_disk "$namespace")
echo '8 8' >"/sys/block/$disk/badblocks"
check "a write beside it" pmem-io pwrite --direct --length 4K "/dev/$disk"
check_fails "a write of the bad page" pmem-io pwrite --direct --offset 4K --length 4K "/dev/$disk"
is "it stays listed" "$(cat "/sys/block/$disk/badblocks")" '8 8'
check_fails "as part of a longer one" pmem-io pwrite --direct --length 64K "/dev/$disk"
is "it stays listed then, too" "$(cat "/sys/block/$disk/badblocks")" '8 8'
check "zeroes, which it does keep" blkdiscard -f -z -o 4096 -l 4096 "/dev/$disk"
is_empty "repair it" cat "/sys/block/$disk/badblocks"
