#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# If the bus cannot clear poison, a write of a bad page fails unless errors/overwrite_heals is set.
# quick
# vm: three
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	unload_driver
}

[ "$DRIVER" = rust_pmem ] || skip_all "C never repairs there"
plan 16
load_driver_anew
namespace=$(nfit_ns)
disk=$(raw_disk "$namespace")
switch=/sys/block/$disk/errors/overwrite_heals
is "the switch is off" "$(cat "$switch")" 0
pmem-io poll "/sys/block/$disk/badblocks" --run "host mce $(($(cat "$ND/$namespace/resource") + (8 << 20)))" >/tmp/badblocks
is "a page is listed" "$(tail -n 1 /tmp/badblocks)" '16384 8'
dmesg -C
check_fails "a write of it" pmem-io pwrite "/dev/$disk" --direct --offset 8M --length 4K
check_fails "and again" pmem-io pwrite "/dev/$disk" --direct --offset 8M --length 4K
is "the log recommends the switch, once" "$(dmesg | grep -c "can't clear poison, so that writes of bad blocks fail")" 1
check_fails "garbage into the switch" sh -c "echo maybe >$switch"
is "leaves it" "$(cat "$switch")" 0
echo 1 >"$switch"
check_fails "switched on, a write of a part" pmem-io pwrite "/dev/$disk" --direct --offset 8M --length 2K
is "it is still listed" "$(cat "/sys/block/$disk/badblocks")" '16384 8'
check "a write of the page" pmem-io fill "/dev/$disk" --direct --offset 8188K --length 16K
is_empty "repairs it: the disk's list" cat "/sys/block/$disk/badblocks"
becomes "the region's list" '' cat "$ND/$namespace/../badblocks"
check "the data is there" pmem-io verify "/dev/$disk" --direct --offset 8188K --length 16K
rebind "$namespace"
disk=$(disk_of "$namespace")
is_empty "bound again, nothing is listed" cat "/sys/block/$disk/badblocks"
is "and the switch is off" "$(cat "/sys/block/$disk/errors/overwrite_heals")" 0
check "the data is there, still" pmem-io verify "/dev/$disk" --direct --offset 8188K --length 16K
