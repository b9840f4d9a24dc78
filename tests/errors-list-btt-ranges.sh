#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# In sector mode, a bad range that spans several BTT map entries is one line of errors/list, and can be dropped in
# pieces.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

cleanup() {
	fresh_labels
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no errors/list"
plan 7
load_driver
disk=$(labelled_disk -m sector -s 96M)
list=/sys/block/$disk/device/errors/list
start=$((32 << 20))
check "a range of 1 MiB is added" sh -c "echo add $start $((1 << 20)) >$list"
is "it is one line" "$(timeout 10 cat "$list")" "$start $((1 << 20)) user"
check "a page of it is dropped, where two entries touch" sh -c "echo drop $((start + (256 << 10))) 4096 >$list"
is "the rest is listed" "$(sorted_ranges "$list")" "$start 262144
$((start + 266240)) 782336"
check "what is behind is dropped" sh -c "echo drop $((start + 266240)) 782336 >$list"
is "the front is listed" "$(sorted_ranges "$list")" "$start 262144"
echo "drop $start 262144" >"$list"
is_empty "nothing is left" cat "$list"
