#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# More errors than the list has room for: neighbours are listed together, no bad block is left out, the log says so once, and writes still heal.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/../provider/lib.sh"

cleanup() {
	provider_cleanup
}

# covered FILE: how many of the pages are listed in it as a whole.
covered() {
	awk -v step=128 -v pages=600 '
		{ for (p = int($1 / step); p <= int(($1 + $2) / step) && p < pages; p++)
			if ($1 <= p * step && $1 + $2 >= p * step + 8) seen[p] = 1 }
		END { n = 0; for (p in seen) n++; print n }' "$1"
}

# bad_pages FIRST LAST: of each 64 KiB, one.
bad_pages() {
	seq "$1" "$2" | while read -r page; do
		provider bad "$((page * 65536))+4K"
	done
}

# all_fail FIRST LAST STEP: reads of bad pages.
all_fail() {
	seq "$1" "$3" "$2" | while read -r page; do
		! pmem-io pread "/dev/$DISK" --direct --offset $((page * 65536)) --length 4K 2>/dev/null || echo "$page"
	done
}

[ "$DRIVER" = rust_pmem ] || skip_all "C leaves out what does not fit"
plan 19
provide bad=0+4K
bad_pages 1 299
list=/sys/block/$DISK/badblocks
region=$ND/$NAMESPACE/../badblocks
is "300 bad pages" "$(covered "$list")" 300
is "are 300 entries" "$(wc -l <"$list")" 300
echo "$((60 * 2048)) 1" >"$list"
dmesg -C
bad_pages 300 599
is "600 bad pages" "$(covered "$list")" 600
check "in fewer entries" test "$(wc -l <"$list")" -lt 512
check "on less than a page of text" test "$(wc -c <"$list")" -lt 4096
is "the region lists them, too" "$(covered "$region")" 600
check "on less than a page of text, too" test "$(wc -c <"$region")" -lt 4096
is "the exact list has them, and what was written to the disk's, and no more" \
	"$(awk '{ n += $2 } END { print n }' "/sys/block/$DISK/device/errors/list")" $((600 * 4096 + 512))
is "each can't be read" "$(all_fail 0 599 29)" ''
check "what is far from them can" pmem-io pread "/dev/$DISK" --direct --offset 64M --length 4M
is "the log says so once" "$(dmesg | grep -c 'more errors than')" 1
rebind "$NAMESPACE"
is "bound again, they are listed" "$(covered "$list")" 600
is "and each can't be read" "$(all_fail 5 599 37)" ''

# Of four bad pages that are listed as one, each is written over by itself.
for page in 396 397 398 399; do
	pmem-io fill "/dev/$DISK" --direct --offset $((page * 65536)) --length 4K
done
check "written over one by one, what was between them can be read" \
	pmem-io pread "/dev/$DISK" --direct --offset $((396 * 65536)) --length 256K

# A write of what is listed as one.
entry=$(head -n 1 "$list")
pmem-io fill "/dev/$DISK" --direct --length $((${entry#* } * 512))
check "written over, they can be read" pmem-io verify "/dev/$DISK" --direct --length $((${entry#* } * 512))
check "the others are listed" test "$(covered "$list")" -ge 590
blkdiscard -f -z "/dev/$DISK"
is "all written over, none is listed" "$(badblocks_of "$DISK")" ''
is "nor for the region" "$(cat "$region")" ''
check "all can be read" pmem-io pread "/dev/$DISK" --direct --length 16M
