#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Where the bus can clear errors, those in the memory for struct pages are cleared, even if the region's badblocks has no room for them.
#
# libnvdimm clears what it finds there, and looks no further.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/badblocks.sh"

COUNT=500

cleanup() {
	provider_cleanup
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no list of errors to fill the table with"
plan 6
provide pages=1 dimm=0
region=$ND/$NAMESPACE/..
list_every $((16 << 20)) 65536 $COUNT >/tmp/bad
is_empty "$COUNT errors are added behind it" edit_list add "$(errors_list_of "$NAMESPACE")" </tmp/bad
echo "add 1048576 8192" >"$(errors_list_of "$NAMESPACE")"
settle
is "the region does not show the one in the memory for struct pages" "$(grep -c '^2048 ' "$region/badblocks")" 0
check "it is bound" ndctl create-namespace -f -e "$NAMESPACE" -m fsdax -M dev
settle
is "that error is gone" "$(grep -c '^1048576 ' "$(errors_list_of "$NAMESPACE")")" 0
is "the others are not" "$(grep -c . "$(errors_list_of "$NAMESPACE")")" $COUNT
device=$(device_of_disk "$(disk_of "$NAMESPACE")")
data=$(($(cat "$ND/$device/resource") - MEMORY))
echo "add $((data - 512)) 1024" >"$(errors_list_of "$NAMESPACE")"
rebind "$device"
is "of one that reaches into the data, the rest stays" "$(grep -c "^$data 512 " "$(errors_list_of "$NAMESPACE")")" 1
