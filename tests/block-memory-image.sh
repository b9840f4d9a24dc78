#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Thousands of random reads, writes and zeroes match a model, and leave the same memory contents under both drivers.
#
# From unaligned buffers, also over bad pages.
# compare
# vm: labels
# timeout: 240
. "$(dirname "$0")/lib/test.sh"

output=/tmp/block-memory-image.output

cleanup() {
	rm -f $output
}

# check_sequence NAME DISK [OPTION OF pmem-io…]: the operations have the results of the model.
check_sequence() {
	sequence_name=$1 sequence_disk=$2
	shift 2
	check "$sequence_name" run_sequence "$@" "/dev/$sequence_disk"
}

run_sequence() {
	pmem-io sequence "$@" >$output || {
		cat $output
		return 1
	}
}

# test_image NAME NAME2 DISK [OPTION OF pmem-io…]: 3 subtests: the same, what was done, and a checksum of the disk after a rebind.
test_image() {
	image_name=$1 image_check=$2 image_disk=$3
	shift 3
	blkdiscard -z "/dev/$image_disk"
	check_sequence "$image_check" "$image_disk" "$@"
	record "$image_name: what was done" "$(cat $output)"
	rebind "$(device_of_disk "$image_disk")"
	record_result "$image_name: the memory" sh -c "sha256sum </dev/$image_disk"
}

plan 13
load_driver
test_image "raw" "raw" "$(plain_disk)" --seed 1
test_image "e820" "e820" "$(e820_disk)" --seed 2
test_image "e820, bad pages" "e820, with bad pages" "$(e820_disk)" --seed 3 --bad
forget_errors "$(e820_disk)"
test_image "fsdax" "fsdax" "$(labelled_disk -m fsdax -M mem -s 64M)" --seed 4
check_sequence "sectors of 4096 bytes" "$(labelled_disk -m raw -l 4096 -s 64M)" --seed 15
