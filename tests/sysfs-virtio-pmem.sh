#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Every file of the disk of a virtio-pmem device, and of the devices of the nd bus that it stands on.
# compare
# vm: --bare --virtio-pmem size=64M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

load_driver
add_tree_rows "raw" "/sys/block/$(disk_of "$(virtio_ns)")"
add_tree_rows "its region" "$ND/$(virtio_ns)/.." -name block -prune -o
add_tree_rows "fsdax" "/sys/block/$(make_fsdax "$(virtio_ns)")"
add_tree_rows "its region, fsdax" "$ND/$(virtio_ns)/.." -name block -prune -o
report_rows
