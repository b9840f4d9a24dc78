#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A corrupt info block of an fsdax namespace yields a raw namespace or a clean probe error, and no kernel report.
#
# Without a valid checksum the namespace is raw; with impossible values the probe fails with an errno.
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# check_result NAME WANTED OFFSET HEX: loads the driver with these bytes in the info block.
check_result() {
	provider_cleanup
	info_block_restore /tmp/block "$3" "$4"
	dmesg -C
	provide keep=1
	if [ -n "$DISK" ]; then
		device=$(readlink -f "/sys/block/$DISK/device")
		device=${device##*/}
		is "$1" "${device%%[0-9]*} of $(cat "/sys/block/$DISK/size")" "$2"
	else
		is "$1" "$(dmesg | sed -n 's/.*probe with driver .* failed with //p' | head -n 1)" "$2"
	fi
}

need xxd od
plan 11
provide pages=1
make_fsdax "$NAMESPACE" dev >/dev/null
unload_driver
info_block_save /tmp/block
is "the block is there" "$(head -c 15 /tmp/block)" NVDIMM_PFN_INFO

check_result "nothing changed" "pfn of 126976" 0 4e
check_result "a wrong checksum" "namespace of 131072" 4088 00000000
check_result "a mode of the future" "namespace of 131072" 72 03000000
check_result "a minor version of the future" "pfn of 126976" 54 ffff
check_result "data behind the end" "error -95" 56 0000001000000000
check_result "data at the very start" "error -16" 56 0000000000000000
# 16383 pages in mode PMEM, from 4K on, with an alignment of 4K.
if [ "$DRIVER" = rust_pmem ]; then
	check_result "data on the info block" "error -22" 56 0010000000000000ff3f00000000000002000000000000000000000000100000
else
	skip "data on the info block" "with nd_pmem, the kernel warns (add_pages)"
fi
check_result "the end cut off in the midst of a section" "error -95" 80 00100000
check_result "more cut off than there is" "error -22" 80 00000010
check_result "intact again" "pfn of 126976" 0 4e
