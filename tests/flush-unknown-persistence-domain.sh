#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# If the platform does not describe its caches, region and disk have the recorded durability attributes in each mode.
#
# With labels and without.
# compare
# vm: labels
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
