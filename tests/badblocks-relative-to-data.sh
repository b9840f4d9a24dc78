#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# In an fsdax namespace badblocks counts sectors from the start of the data, and omits errors of the metadata.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 4
provide pages=1
disk=$(make_fsdax "$NAMESPACE" dev)
start=$((64 * 2048 - $(cat "/sys/block/$disk/size")))
edge=$((start * 512))
unload_driver

provider bad "$((edge + 1048576))+512,$((64 * 1048576 - 4096))+8K"
load_driver
is "errors that were there before" "$(badblocks_of "$disk")" "2048+1 $((64 * 2048 - start - 8))+8"
# Not before a probe: libnvdimm would try to clear them first, and warn because they are not mapped.
provider bad "1M+4K,$((edge - 4096))+8K,$((edge + 2097152))+1K"
is "with some that came later" "$(badblocks_of "$disk")" "0+8 2048+1 4096+2 $((64 * 2048 - start - 8))+8"
check_fails "reading what is bad" read_sectors "$disk" 4097
check "reading what is not" read_sectors "$disk" 4098
