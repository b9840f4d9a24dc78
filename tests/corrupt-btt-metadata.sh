#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Corrupt info blocks, maps and logs in sector mode yield the recorded namespace, data and log messages.
# compare
# vm: provider
# expect-splat: at nsio_rw_bytes+
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/corrupt.sh"

need perl od
# struct btt_sb, in drivers/nvdimm/btt.h: the offsets of the map, the log and the copy of the info block, relative to
# the info block.
btt_field() {
	od -An -tu8 -j $((4096 + $1)) -N 8 /tmp/memory | tr -d ' '
}

# Without asynchronous flushes: with them, rust_pmem makes sector mode read-only.
export PARAMETERS=dimm=0
provide size=$((32 << 20)) "$PARAMETERS"
DISK=$(make_namespace -e "$NAMESPACE" -m sector | jq -r .blockdev)
# By the CPU that writes after each corruption: each has a free block of its own.
taskset -c 0 pmem-io fill --direct --length 64K "/dev/$DISK"
save_memory 32
map=$((4096 + $(btt_field 96)))
log=$((4096 + $(btt_field 104)))
second=$((4096 + $(btt_field 112)))
add_row "the log is behind the map, and the copy behind that" "$((log > map)) $((second > log))"
try_corruptions "sector" 32 "$second" <<-END
	nothing changed|block|0|42
	another signature|block|0|43
	another signature of the first copy|first|0|43
	a wrong checksum|block|4088|0000000000000000
	a wrong checksum of the first copy|first|4088|0000000000000000
	another parent's uuid|block|32|11111111111111111111111111111111
	flags: an error|block|48|01000000
	major version 2|block|52|0200
	minor version 0|block|54|0000
	a minor version of the future|block|54|ffff
	sectors of no bytes|block|56|00000000
	sectors of 520 bytes|block|56|08020000
	sectors of 1M|block|56|00001000
	no sectors|block|60|00000000
	more sectors than there are|block|60|ffffffff
	internal sectors of no bytes|block|64|00000000
	no internal sectors|block|68|00000000
	more internal sectors than there are|block|68|ffffffff
	no free sectors|block|72|00000000
	more free sectors than there are|block|72|ffffff7f
	a huge block|block|76|ffffffff
	a next arena|block|80|0000100000000000
	a next arena behind the end|block|80|0000000100000000
	data behind the end|block|88|0000000100000000
	the map behind the end|block|96|0000000100000000
	the log behind the end|block|104|0000000100000000
	the second block behind the end|block|112|0000000100000000
	a map entry behind the end|memory|$map|ffffffcf
	a map entry with an error|memory|$map|00000040
	a map entry of zeroes|memory|$map|00000000
	a log of equal sequence numbers|memory|$log|00000000000000000000000001000000000000000000000000000000010000000000000000000000
	intact again|block|0|42
END
report_rows
