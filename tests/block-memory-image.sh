#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Equal random reads, writes and zeroes leave the same memory contents under both drivers, also over bad pages.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# timeout: 240
# quick
. "$(dirname "$0")/lib/test.sh"

# record_image NAME DISK [OPTION OF pmem-io…]: records the results of the operations, and a checksum of the disk after a
# rebind.
record_image() {
	image_name=$1 image_disk=$2
	shift 2
	blkdiscard -z "/dev/$image_disk"
	record_result "$image_name: what was done" pmem-io sequence "$@" "/dev/$image_disk"
	rebind "$(device_of_disk "$image_disk")"
	record_result "$image_name: the memory" sh -c "sha256sum </dev/$image_disk"
}

plan 8
load_driver
record_image "raw" "$(plain_disk)" --seed 1
record_image "e820" "$(e820_disk)" --seed 2
record_image "e820, bad pages" "$(e820_disk)" --seed 3 --bad
forget_errors "$(e820_disk)"
record_image "fsdax" "$(labelled_disk -m fsdax -M mem -s 64M)" --seed 4
