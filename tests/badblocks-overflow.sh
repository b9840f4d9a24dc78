#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# More errors than badblocks has room for: it shows what fits, and the log says so once; none of them can be read, what is good can be used, and writes repair.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/badblocks.sh"

STRIDE=65536

cleanup() {
	provider_cleanup
}

# bad_pages FIRST LAST: of each 64 KiB, one.
bad_pages() {
	seq "$1" "$2" | while read -r page; do
		provider bad "$((page * STRIDE))+4K"
	done
}

# exact NAME PAGES: the exact list has those, and badblocks no good sector: 3 subtests.
exact() {
	is "$1: errors/list has them, and no more" "$(sorted_ranges "$list" | digest)" "$(digest </tmp/bad)"
	is "$1: badblocks has no good sector" "$(extra_badblocks "$DISK" "$list")" ''
	check "$1: badblocks is not longer than a page" test "$(wc -c <"/sys/block/$DISK/badblocks")" -le 4096
}

[ "$DRIVER" = rust_pmem ] || skip_all "C leaves out what does not fit"
need pmem-io
plan 24
provide bad=0+4K
bad_pages 1 299
list=/sys/block/$DISK/device/errors/list
is "300 bad pages are 300 lines" "$(wc -l <"/sys/block/$DISK/badblocks")" 300
dmesg -C
bad_pages 300 599
list_every 0 $STRIDE 600 >/tmp/bad
exact "600 bad pages"
is "none can be read" "$(places "$DISK" read --stride $STRIDE --count 600)" 'Input/output error: 600'
is "what is between them can" "$(places "$DISK" read --offset 4K --length 60K --stride $STRIDE --count 600)" 'ok: 600'
is "what is between them can be written" "$(places "$DISK" write --offset 4K --length 60K --stride $STRIDE --count 600)" 'ok: 600'
is "the log says so once, and of which namespace" "$(dmesg | grep -c "$NAMESPACE.*badblocks")" 1
rebind "$NAMESPACE"
exact "bound again"
is "none can be read then" "$(places "$DISK" read --stride $STRIDE --count 600)" 'Input/output error: 600'
is "what is between them can then" "$(places "$DISK" read --offset 4K --length 60K --stride $STRIDE --count 600)" 'ok: 600'

is "300 are repaired by writes" "$(places "$DISK" rewrite --stride $((2 * STRIDE)) --count 300 --order shuffled)" 'ok: 300'
list_every $STRIDE $((2 * STRIDE)) 300 >/tmp/bad
exact "then"
# A page of it is shown.
is "the platform knows no others" "$(provider bad | grep -a '+4096$' | tr + ' ' | sort -n | head -n 100 | digest)" "$(head -n 100 /tmp/bad | digest)"
is "the others can't be read" "$(places "$DISK" read --offset $STRIDE --stride $((2 * STRIDE)) --count 300)" 'Input/output error: 300'
is "those repaired can, all at the end" "$(places "$DISK" verify --stride $((2 * STRIDE)) --count 300)" 'ok: 300'
blkdiscard -f -z "/dev/$DISK"
is "all zeroed, none is listed" "$(badblocks_of "$DISK")" ''
is "nor for the region" "$(cat "$ND/$NAMESPACE/../badblocks")" ''
is "nor on the exact list" "$(cat "$list")" ''
check "all can be read" pmem-io pread "/dev/$DISK" --direct --length 64M
