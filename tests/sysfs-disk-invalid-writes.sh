#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Every writable sysfs file of a disk accepts valid values and refuses garbage, empty and huge text, as recorded.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

need perl
load_driver
disk=$(plain_disk)
# shellcheck disable=SC2046 # a list
add_write_rows "raw" "/sys/block/$disk" \
	$(cd "/sys/block/$disk" && find . -perm -200 -type f -printf '%P\n' | grep -v '^dax/\|^badblocks\|^uevent$' | sort) \
	-- 0 1 2 '1\n' 16 -1 '' '\n' garbage 'write through' 'write back' none 18446744073709551616 '1*3000' '1*9000'
add_write_rows "raw" "/sys/block/$disk" uevent -- add change 'change 11111111-2222-3333-4444-555555555555 A=b' '' garbage 'x*9000'
report_rows
