#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Thousands of random reads, writes and zeroes match a model, from unaligned buffers, also over bad pages.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# timeout: 240
. "$(dirname "$0")/lib/test.sh"

plan 5
load_driver
check "raw" pmem-io sequence --seed 11 "/dev/$(plain_disk)"
check "e820" pmem-io sequence --seed 12 "/dev/$(e820_disk)"
check "e820, with bad pages" pmem-io sequence --seed 13 --bad "/dev/$(e820_disk)"
check "fsdax" pmem-io sequence --seed 14 "/dev/$(labelled_disk -m fsdax -M mem -s 64M)"
check "sectors of 4096 bytes" pmem-io sequence --seed 15 "/dev/$(labelled_disk -m raw -l 4096 -s 64M)"
forget_errors "$(e820_disk)"
