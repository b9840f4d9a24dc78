#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks in the info block and the memmap of a namespace, where these are on the device, are listed and crash nothing.
#
# The kernel reads the struct pages of the info block, which it has not initialised: they have what was there before. Of
# less than a section (128 MiB) they are in RAM.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

# fill_memmap DISK: all ones where the struct pages will be.
fill_memmap() {
	tr '\0' '\377' </dev/zero |
		dd of="$1" bs=1M oflag=direct,seek_bytes iflag=fullblock,count_bytes seek=8K count=$((data - 8192)) 2>/dev/null
}

[ "$DRIVER" = rust_pmem ] || skip_all "the kernel crashes with C"
need pmem-io
plan 5
origin=$(machine_check_origin)
load_driver
disk=$(labelled_disk -m fsdax -M dev -s 160M)
namespace=$(jq -r .dev /tmp/labelled_disk.json)
start=$(cat "$ND/$namespace/resource")
data=$(($(cat "/sys/block/$disk/device/resource") - start))
with_force_raw "$namespace" fill_memmap
list=/sys/block/$disk/device/errors/list
pmem-io fill --direct --length 1M "/dev/$disk"
for offset in 4096 1048576 $((data - 4096)); do
	host mce $((start + offset))
	wait_for 60 grep -q "^$offset " "$list"
done
is "each is listed" "$(cat "$list")" "4096 4096 $origin
1048576 4096 $origin
$((data - 4096)) 4096 $origin"
is_empty "the list of the data is empty" cat "/sys/block/$disk/badblocks"
host mce $((start + data))
check "one in the data is listed there" wait_for 60 grep -qx "0 8" "/sys/block/$disk/badblocks"
check "the rest can be written" pmem-io fill --direct --offset 1M --length 1M "/dev/$disk"
check "and read" pmem-io verify --direct --offset 1M --length 1M "/dev/$disk"
