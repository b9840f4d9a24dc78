#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Sector mode follows new errors, and the read_only file of its region, while it is bound.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 6
provide dimm=0
region=${NAMESPACE#namespace}
read_only=$ND/region${region%.*}/read_only
disk=$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)
check "it is written" pmem-io fill --direct --length 4M "/dev/$disk"
check "and read" pmem-io verify --direct --length 4M "/dev/$disk"
provider bad 2M+4K
check_fails "a bad block can't be read" pmem-io pread --direct --length 4M "/dev/$disk"
echo 1 >"$read_only"
is "read-only with the region" "$(cat "/sys/block/$disk/ro")" 1
echo 0 >"$read_only"
is "and writable again" "$(cat "/sys/block/$disk/ro")" 0
check "it takes a write" pmem-io pwrite --direct --length 4K "/dev/$disk"
