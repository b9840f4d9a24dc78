#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Every file of the disks of a region with labels (raw, fsdax with its page map on the device, sector), and of all devices of the nd
# bus below that region and below one without labels.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# add NAME ARGUMENTS OF ndctl create-namespace…: makes it in what is left of the region.
add() {
	name=$1
	shift
	add_tree_rows "$name" "/sys/block/$(make_namespace -r "$region" "$@" | jq -r .blockdev)"
}

load_driver
add_tree_rows "raw" "/sys/block/$(labelled_disk -m raw -s 32M)"
region=$(labelled_region)
add "fsdax, map on the device" -m fsdax -M dev -s 64M
add "sector" -m sector -s 32M
# The disks' own folders were walked above.
add_tree_rows "region with labels" "$ND/$region" -name block -prune -o
add_tree_rows "region without labels" "$ND/$(plain_disk | sed 's/pmem\([0-9]*\).*/region\1/')" -name block -prune -o
add_tree_rows "region of e820" "$ND/$(e820_ns)/.." -name block -prune -o
add_tree_rows "the driver" "/sys/bus/nd/drivers/$DRIVER" ! -name 'namespace*'
unload_driver
add_tree_rows "region with labels, without a driver" "$ND/$region"
report_rows
