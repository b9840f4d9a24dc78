#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Errors of a disk of more than 1 TiB are listed, added, and dropped like those of a small one.
#
# The kernel's functions for tables of bad blocks count the sectors of a call in an int.
# vm: huge
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	unload_driver
	echo 0 >"$ND/$namespace/force_raw"
}

plan 8
! driver_loaded || unload_driver
load_providers
settle
namespace=$(nfit_ns)
# Without struct pages, for which the guest has no memory.
echo 1 >"$ND/$namespace/force_raw"
load_driver
disk=$(disk_of "$namespace")
last=$(($(cat "/sys/block/$disk/size") - 8))
is "it is larger than 1 TiB" "$((last >> 31))" 1
list=$ND/$namespace/errors/list
echo "4104 8" >"/sys/block/$disk/badblocks"
if [ "$DRIVER" = rust_pmem ]; then
	is "an error at its start is listed" "$(cat "$list")" "2101248 4096 user"
else
	skip "an error at its start is listed" "nd_pmem has no errors/list"
fi
echo "$last 8" >"/sys/block/$disk/badblocks"
check_fails "it can't be read" pmem-io pread --direct "/dev/$disk" --offset 2052K --length 4K
check "what is in front can" pmem-io pread --direct "/dev/$disk" --offset 1M --length 1M
check_fails "nor can one at its end" pmem-io pread --direct "/dev/$disk" --offset $((last * 512)) --length 4K
check "what is between can" pmem-io pread --direct "/dev/$disk" --offset 1152G --length 1M
if [ "$DRIVER" = rust_pmem ]; then
	echo "drop 0 $(((last + 8) * 512))" >"$list"
	is_empty "both are dropped at once" cat "$list"
else
	skip "both are dropped at once" "nd_pmem has no errors/list"
fi
check "it is unbound and bound" rebind "$namespace"
