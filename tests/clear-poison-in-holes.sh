#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A large bad range can be repaired page by page in any order, in more pieces than badblocks has entries.
# quick
# vm: three
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

STRIDE=65536
COUNT=1000

cleanup() {
	forget_errors "${disk:-}"
	unload_driver
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no errors/list"
need pmem-io
plan 17
load_driver
namespace=$(e820_ns)
disk=$(raw_disk "$namespace")
list=$(errors_list_of "$namespace")
size=$((64 << 20))

for order in ascending descending shuffled; do
	echo "add 0 $size" >"$list"
	is "$order: $COUNT pages are written, and each can be read" \
		"$(places "$disk" rewrite --offset 16K --stride $STRIDE --count $COUNT --order $order)" "ok: $COUNT"
	is "$order: all of them can be read at the end" "$(places "$disk" verify --offset 16K --stride $STRIDE --count $COUNT)" "ok: $COUNT"
	is "$order: errors/list has the rest" "$(awk '{ n += $2 } END { print n }' "$list")" $((size - COUNT * PAGE))
	is "$order: the pages behind them can't be read" "$(places "$disk" read --offset 20K --stride $STRIDE --count $COUNT)" \
		"Input/output error: $COUNT"
	is_empty "$order: badblocks has no good sector" extra_badblocks "$disk" "$list"
	[ "$order" != shuffled ] || break
	echo "drop 0 $size" >"$list"
done
rebind "$namespace"
is "bound again, they can be read" "$(places "$disk" verify --offset 16K --stride $STRIDE --count $COUNT)" "ok: $COUNT"
blkdiscard -f -z "/dev/$disk"
becomes "all zeroed, nothing is listed, of the region neither" '' cat "$list" "/sys/block/$disk/badblocks" "$ND/$namespace/../badblocks"
