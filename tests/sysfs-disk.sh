#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Every file of the disk, by its name, permissions and contents: raw on an NVDIMM, raw on e820 memory, fsdax.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# quick
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

load_driver
walk "raw" "/sys/block/$(plain_disk)"
walk "raw, e820" "/sys/block/$(e820_disk)"
disk=$(labelled_disk -m fsdax -M mem)
walk "fsdax" "/sys/block/$disk"
walk "its backing device" "/sys/block/$disk/bdi/"
show_rows
