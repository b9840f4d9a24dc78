#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check in the info block of a namespace is logged and listed, and affects no data.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "C has no errors/list"
need pmem-io
plan 5
origin=$(machine_check_origin)
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 96M)
start=$(cat "$ND/$(jq -r .dev /tmp/labelled_disk.json)/resource")
pmem-io fill --direct --length 1M "/dev/$disk"
dmesg -C
host mce $((start + 4096))
check "it is logged" wait_for 60 sh -c "dmesg | grep -qF 'error at $(printf '%#x' $((start + 4096))), in the info block or the memmap of the namespace'"
is "it is listed" "$(cat "/sys/block/$disk/device/errors/list")" "4096 4096 $origin"
is_empty "the list of the data is empty" cat "/sys/block/$disk/badblocks"
check "the data can be read" pmem-io verify --direct --length 1M "/dev/$disk"
check "and written" pmem-io fill --direct "/dev/$disk"
