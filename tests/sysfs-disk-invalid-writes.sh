#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Every writable sysfs file of a disk accepts valid values and refuses garbage, empty and huge text, as recorded.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# quick
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

need perl
load_driver
disk=$(plain_disk)
for file in $(cd "/sys/block/$disk" && find . -perm -200 -type f -printf '%P\n' | grep -v '^dax/\|^badblocks\|^uevent$' | sort); do
	add_write_rows "raw" "/sys/block/$disk" "$file" -- 0 1 2 '1\n' 16 -1 '' '\n' garbage 'write through' 'write back' none 18446744073709551616 '1*3000' '1*9000'
done
add_write_rows "raw" "/sys/block/$disk" uevent -- add change 'change 11111111-2222-3333-4444-555555555555 A=b' '' garbage 'x*9000'
report_rows
