#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A range that another driver has claimed in iomem is refused with EBUSY and a log message; once released, it binds.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# test_claimed NAME OFFSET
test_claimed() {
	provider claim "$2"
	is "$1: the errno" "$(bind_error "$NAMESPACE")" "Device or resource busy"
	is_empty "$1: no disk" find /sys/block -name 'pmem*'
	is "$1: no claim" "$(grep -c "$NAMESPACE" /proc/iomem)" 0
	provider claim ""
	is_empty "$1: given back" bind_error "$NAMESPACE"
	check "$1: it reads" read_sectors "$DISK" 0 8
	echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
}

plan 12
provide pages=1
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
dmesg -C
test_claimed "its first page" 0
range=$(printf '0x%x-0x%x' "$MEMORY" $((MEMORY + (64 << 20) - 1)))
check "the log says it" sh -c "dmesg | grep -q '$NAMESPACE: could not reserve region .mem $range.'"
test_claimed "its last page" 65532K
is "the log has no more than two lines of each" "$(dmesg | grep -c "$NAMESPACE")" 4
