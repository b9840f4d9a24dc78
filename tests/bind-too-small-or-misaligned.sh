#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A namespace that is too small or misaligned is declined with the errno and log message of the C driver.
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# check_declined NAME START SIZE PAGES ERROR
check_declined() {
	provide start="$2" size="$3" pages="$4" dimm=0
	check "$1: no disk" test -z "$DISK"
	is "$1: the errno" "$(bind_error "$NAMESPACE")" "$5"
	is "$1: no claim" "$(grep -c "$NAMESPACE" /proc/iomem)" 0
	provider_cleanup
}

unmappable="Operation not supported"
plan 16
check_declined "half a page" "$MEMORY" 2048 1 "No such device"
check_declined "a page, to be mapped with struct pages" "$MEMORY" 4096 1 "$unmappable"
check_declined "a start that is not a multiple of 2M" $((MEMORY + 4096)) $((8 << 20)) 1 "$unmappable"
dmesg -C
check_declined "nor is the end" "$MEMORY" $(((8 << 20) + 4096)) 1 "$unmappable"
check "the log says it" sh -c "dmesg | grep -q '$NAMESPACE: .mem .* misaligned, unable to map'"

provide start=$((MEMORY + 4096)) size=$((8 << 20)) pages=0
check "without struct pages it is served" test -n "$DISK"
is "all of it" "$(cat "/sys/block/$DISK/size")" 16384
check "it reads" read_sectors "$DISK" 16376 8
