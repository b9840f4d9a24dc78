#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A namespace with too little room for its struct pages fails with ENOMEM and leaves nothing behind.
# expect-splat: at add_pages+
# expect-splat: at arch_add_memory+
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

need xxd od
plan 5
provide size=$((128 << 20))
make_fsdax "$NAMESPACE" dev >/dev/null
provider_cleanup
info_block_save /tmp/block
# The data begins at 64K, where 2M of struct pages should be.
info_block_restore /tmp/block 56 0000010000000000
dmesg -C
provide size=$((128 << 20)) keep=1
is "the errno" "$(dmesg | sed -n 's/.*probe with driver .* failed with //p' | head -n 1)" "error -12"
is_empty "no disk" find /sys/block -name 'pmem*'
is "no claim" "$(grep -c "$NAMESPACE" /proc/iomem)" 0
unload_driver
info_block_restore /tmp/block
load_driver
check "with room there is a disk" disk_of "$NAMESPACE"
check "and it reads" read_sectors "$(disk_of "$NAMESPACE")" 0 8
