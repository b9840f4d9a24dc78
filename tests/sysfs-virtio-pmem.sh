#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Every sysfs file of a virtio-pmem disk and of its nd devices has the recorded name, mode and contents.
# compare
# vm: three
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

cleanup() {
	raw_disk "$(virtio_ns)" >/dev/null
}

# Without what others have left on the disk, and of their devices in the region.
load_driver
blkdiscard -f -z "/dev/$(raw_disk "$(virtio_ns)")"
remove_providers
load_driver
add_tree_rows "raw" "/sys/block/$(disk_of "$(virtio_ns)")"
add_tree_rows "its region" "$ND/$(virtio_ns)/.." -name block -prune -o
add_tree_rows "fsdax" "/sys/block/$(make_fsdax "$(virtio_ns)")"
add_tree_rows "its region, fsdax" "$ND/$(virtio_ns)/.." -name block -prune -o
report_rows
