#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Adding an error and repairing one both wake a process that polls badblocks.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

need pmem-io
plan 4
provide pages=1
list=/sys/block/$DISK/badblocks
is "when an error comes" "$(pmem-io poll "$list" --run "echo 1M+4K >/sys/module/pmem_provider/parameters/bad")" "2048 8"
write="pmem-io pwrite --direct --length 4K /dev/$DISK --offset"
check "when it is repaired" pmem-io poll "$list" --run "$write 1M"
is_empty "and there is none" badblocks_of "$DISK"
tap_run pmem-io poll "$list" --timeout 1 --run "$write 2M"
# shellcheck disable=SC2154 # tap_run sets it
is "but not by a write that repairs nothing" "$tap_status" 3
