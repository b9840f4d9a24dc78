#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# With more errors than badblocks can hold, none is readable, badblocks shows what fits, and one log message says so.
#
# The same with a range that it can't hold even as merged ranges. Good data stays usable, and writes repair.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/badblocks.sh"

STRIDE=65536

# report_pages FIRST LAST: the bus reports one page per 64 KiB.
report_pages() {
	seq "$1" "$2" | while read -r page; do
		provider bad "$((page * STRIDE))+4K"
	done
}

# check_lists NAME: errors/list has exactly these pages, and badblocks no good sector: 3 subtests.
check_lists() {
	is "$1: errors/list has them, and no more" "$(sorted_ranges "$list" | digest)" "$(digest </tmp/bad)"
	is_empty "$1: badblocks has no good sector" extra_badblocks "$DISK" "$list"
	check "$1: badblocks shows what fits in a page" fills_page "/sys/block/$DISK/badblocks"
}

# check_read_fails WHERE [HOW]
check_read_fails() {
	check_fails "a read at $1 fails${2:+, $2}" pmem-io pread --direct --offset "$1" --length 4K "/dev/$DISK"
}

[ "$DRIVER" = rust_pmem ] || skip_all "C leaves out what does not fit"
need pmem-io
plan 41
provide size=$((128 << 20)) bad=0+4K
report_pages 1 299
list=/sys/block/$DISK/device/errors/list
is "300 bad pages are 300 lines" "$(wc -l <"/sys/block/$DISK/badblocks")" 300
dmesg -C
report_pages 300 599
list_every 0 $STRIDE 600 >/tmp/bad
check_lists "600 bad pages"
is "none can be read" "$(places "$DISK" read --stride $STRIDE --count 600)" 'Input/output error: 600'
is "what is between them can" "$(places "$DISK" read --offset 4K --length 60K --stride $STRIDE --count 600)" 'ok: 600'
is "what is between them can be written" "$(places "$DISK" write --offset 4K --length 60K --stride $STRIDE --count 600)" 'ok: 600'
is "the log says so once, and of which namespace" "$(dmesg | grep -c "$NAMESPACE.*badblocks")" 1
rebind "$NAMESPACE"
check_lists "bound again"
is "none can be read then" "$(places "$DISK" read --stride $STRIDE --count 600)" 'Input/output error: 600'
is "what is between them can then" "$(places "$DISK" read --offset 4K --length 60K --stride $STRIDE --count 600)" 'ok: 600'

is "300 are repaired by writes" "$(places "$DISK" rewrite --stride $((2 * STRIDE)) --count 300 --order shuffled)" 'ok: 300'
list_every $STRIDE $((2 * STRIDE)) 300 >/tmp/bad
check_lists "then"
is "then: badblocks shows all that are left" "$(digest <"/sys/block/$DISK/badblocks")" "$(awk '{ print $1 / 512, $2 / 512 }' /tmp/bad | digest)"
# The parameter shows at most a page of text.
is "the platform knows no others" "$(provider bad | grep -a '+4096$' | tr + ' ' | sort -n | head -n 100 | digest)" "$(head -n 100 /tmp/bad | digest)"
is "the others can't be read" "$(places "$DISK" read --offset $STRIDE --stride $((2 * STRIDE)) --count 300)" 'Input/output error: 300'
is "those repaired can, all at the end" "$(places "$DISK" verify --stride $((2 * STRIDE)) --count 300)" 'ok: 300'
blkdiscard -f -z "/dev/$DISK"
is_empty "all zeroed, none is listed" badblocks_of "$DISK"
becomes "nor for the region" '' cat "$ND/$NAMESPACE/../badblocks"
is_empty "nor on the exact list" cat "$list"
check "all can be read" pmem-io pread "/dev/$DISK" --direct --length 64M

# The log says so once for each binding.
rebind "$NAMESPACE"
dmesg -C
echo "add $((4 << 20)) $((96 << 20))" >"$list"
is "one range: the log says so once, and of which namespace" "$(dmesg | grep -c "$NAMESPACE.*badblocks")" 1
check "badblocks shows what fits in a page" fills_page "/sys/block/$DISK/badblocks"
is "the exact list has it" "$(cat "$list")" "$((4 << 20)) $((96 << 20)) user"
check "a read before them" pmem-io pread --direct --length 4M "/dev/$DISK"
check_read_fails 4M
check_read_fails 64M
check_read_fails 102396K
check "a read behind them" pmem-io pread --direct --offset 100M --length 4M "/dev/$DISK"
check "a write of the last bad page" pmem-io fill --direct --offset 102396K --length 4K "/dev/$DISK"
check "repairs it" pmem-io verify --direct --offset 102396K --length 4K "/dev/$DISK"
check_read_fails 102392K
check "a part of it is repaired" sh -c "echo drop $((4 << 20)) $((8 << 20)) >$list"
is "the exact list has the rest" "$(sorted_ranges "$list" | xargs)" "$((12 << 20)) $(((88 << 20) - 4096))"
is_empty "badblocks has no good sector" extra_badblocks "$DISK" "$list"
check_read_fails 102392K still
check "what was repaired can be read" pmem-io pread --direct --offset 4M --length 4M "/dev/$DISK"
