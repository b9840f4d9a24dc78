#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Every sysfs file of a labelled region, of its disks and nd devices, has the recorded name, mode and contents.
#
# Modes: raw, fsdax with its struct pages on the device, sector. Also a region without labels.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# add_namespace_rows NAME ARGUMENTS OF ndctl create-namespace…: makes a namespace in the free space of the region.
add_namespace_rows() {
	name=$1
	shift
	add_tree_rows "$name" "/sys/block/$(make_namespace -r "$region" "$@" | jq -r .blockdev)"
}

load_driver
add_tree_rows "raw" "/sys/block/$(labelled_disk -m raw -s 32M)"
region=$(labelled_region)
add_namespace_rows "fsdax, map on the device" -m fsdax -M dev -s 64M
add_namespace_rows "sector" -m sector -s 32M
# The folders of the disks are covered above.
add_tree_rows "region with labels" "$ND/$region" -name block -prune -o
add_tree_rows "region without labels" "$ND/$(plain_disk | sed 's/pmem\([0-9]*\).*/region\1/')" -name block -prune -o
add_tree_rows "region of e820" "$ND/$(e820_ns)/.." -name block -prune -o
add_tree_rows "the driver" "/sys/bus/nd/drivers/$DRIVER" ! -name 'namespace*'
unload_driver
add_tree_rows "region with labels, without a driver" "$ND/$region"
report_rows
