#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Hundreds of isolated errors fail only their own pages, and repaired pages stay good when further errors arrive.
# quick
# vm: three
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

STRIDE=131072
COUNT=500

cleanup() {
	forget_errors "${disk:-}"
	unload_driver
}

# test_isolated NAME NAMESPACE: 9 subtests.
test_isolated() {
	disk=$(raw_disk "$2")
	list=$(errors_list_of "$2")
	pmem-io fill --direct --length 64M "/dev/$disk"
	list_every 0 $STRIDE $COUNT >/tmp/bad
	is_empty "$1: $COUNT errors are added" edit_list add "$list" </tmp/bad
	is "$1: errors/list has each, and no more" "$(sorted_ranges "$list" | digest)" "$(digest </tmp/bad)"
	is_empty "$1: badblocks has no good sector" extra_badblocks "$disk" "$list"
	check "$1: badblocks shows what fits in a page" fills_page "/sys/block/$disk/badblocks"
	is "$1: the page before each can be read" "$(places "$disk" verify --offset 124K --stride $STRIDE --count $COUNT)" "ok: $COUNT"
	is "$1: what is between them can be read" "$(places "$disk" verify --offset 4K --length 124K --stride $STRIDE --count $COUNT)" \
		"ok: $COUNT"
	is "$1: none of them can be read" "$(places "$disk" read --stride $STRIDE --count $COUNT)" "Input/output error: $COUNT"
	is "$1: the page behind each can be written" "$(places "$disk" rewrite --seed 2 --offset 4K --stride $STRIDE --count $COUNT)" \
		"ok: $COUNT"
	is "$1: what is between them can be written" \
		"$(places "$disk" rewrite --seed 2 --offset 4K --length 124K --stride $STRIDE --count $COUNT)" "ok: $COUNT"
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no errors/list"
need pmem-io
plan 29
load_driver_anew

test_isolated e820 "$(e820_ns)"
HALF=$((COUNT / 2))
is "e820: every other one is repaired by a write" "$(places "$disk" rewrite --stride $((2 * STRIDE)) --count $HALF)" "ok: $HALF"
is "e820: the others can't be read" "$(places "$disk" read --offset $STRIDE --stride $((2 * STRIDE)) --count $HALF)" \
	"Input/output error: $HALF"
list_every $STRIDE $((2 * STRIDE)) $HALF >/tmp/bad
is "e820: they alone are listed" "$(sorted_ranges "$list" | digest)" "$(digest </tmp/bad)"
list_every 65536 $STRIDE $COUNT >/tmp/more
is_empty "e820: $COUNT others are added" edit_list add "$list" </tmp/more
is "e820: what was repaired stays good" "$(places "$disk" verify --stride $((2 * STRIDE)) --count $HALF)" "ok: $HALF"
is "e820: what is between can be read" \
	"$(places "$disk" verify --seed 2 --offset 4K --length 60K --stride $STRIDE --count $COUNT)" "ok: $COUNT"
is "e820: none of the others can be read" "$(places "$disk" read --offset 64K --stride $STRIDE --count $COUNT)" \
	"Input/output error: $COUNT"
sort -n /tmp/bad /tmp/more >/tmp/all
is "e820: errors/list has each" "$(sorted_ranges "$list" | digest)" "$(digest </tmp/all)"
rebind "$(e820_ns)"
is "e820: bound again, the same" "$(sorted_ranges "$list" | digest) $(places "$disk" verify --stride $((2 * STRIDE)) --count $HALF)" \
	"$(digest </tmp/all) ok: $HALF"
blkdiscard -f -z "/dev/$disk"
is_empty "e820: all zeroed, nothing is listed" cat "$list" "/sys/block/$disk/badblocks"

# QEMU's NVDIMMs have no clear-error command.
test_isolated NFIT "$(nfit_ns)"
is "NFIT: a write can't clear them" "$(places "$disk" write --stride $STRIDE --count $COUNT)" "Input/output error: $COUNT"
