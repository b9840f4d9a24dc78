#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Every sysfs file of a disk has the recorded name, mode and contents: raw on an NVDIMM, raw on e820, fsdax.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

load_driver
add_tree_rows "raw" "/sys/block/$(plain_disk)"
add_tree_rows "raw, e820" "/sys/block/$(e820_disk)"
disk=$(labelled_disk -m fsdax -M mem)
add_tree_rows "fsdax" "/sys/block/$disk"
add_tree_rows "its backing device" "/sys/block/$disk/bdi"
report_rows
