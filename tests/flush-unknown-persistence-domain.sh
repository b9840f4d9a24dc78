#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What region and disk say of durability where the platform says nothing of its caches: with labels and without, in each mode.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/flush-count.sh"

plan 8
load_driver
region=$(labelled_region)
for mode in fsdax raw sector; do
	record_durability "with labels, $mode" "$(labelled_disk -m $mode -s 64M)" "$region"
done
disk=$(plain_disk)
record_durability "without labels" "$disk" "$(basename "$(readlink -f "/sys/block/$disk/device/..")")"
