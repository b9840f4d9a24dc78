#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Errors that badblocks cannot hold even as merged ranges are never read over, good data stays usable, and writes
# repair.
# vm: --bare --e820 352M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

# check_read_fails WHERE [HOW]
check_read_fails() {
	check_fails "a read at $1 fails${2:+, $2}" pmem-io pread --direct --offset "$1" --length 4K "/dev/$disk"
}

[ "$DRIVER" = rust_pmem ] || skip_all "C leaves out what does not fit"
plan 16
load_driver
disk=$(e820_disk)
cleanup() {
	forget_errors "$disk"
}
list=/sys/block/$disk/device/errors/list
dmesg -C
echo "add $((4 << 20)) $((96 << 20))" >"$list"
is "the log says so once, and of which namespace" "$(dmesg | grep -c "$(e820_ns).*badblocks")" 1
check "badblocks shows what fits in a page" fills_page "/sys/block/$disk/badblocks"
is "the exact list has it" "$(cat "$list")" "$((4 << 20)) $((96 << 20)) user"
check "a read before them" pmem-io pread --direct --length 4M "/dev/$disk"
check_read_fails 4M
check_read_fails 64M
check_read_fails 102396K
check "a read behind them" pmem-io pread --direct --offset 100M --length 4M "/dev/$disk"
check "a write of the last bad page" pmem-io fill --direct --offset 102396K --length 4K "/dev/$disk"
check "repairs it" pmem-io verify --direct --offset 102396K --length 4K "/dev/$disk"
check_read_fails 102392K
check "a part of it is repaired" sh -c "echo drop $((4 << 20)) $((8 << 20)) >$list"
is "the exact list has the rest" "$(sorted_ranges "$list" | xargs)" "$((12 << 20)) $(((88 << 20) - 4096))"
is_empty "badblocks has no good sector" extra_badblocks "$disk" "$list"
check_read_fails 102392K still
check "what was repaired can be read" pmem-io pread --direct --offset 4M --length 4M "/dev/$disk"
