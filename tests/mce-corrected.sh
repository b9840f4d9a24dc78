#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A corrected memory error is not listed, and an uncorrected one after it is.
# vm: --bare --nvdimm size=112M
. "$(dirname "$0")/lib/test.sh"

# The kernel looks for corrected machine checks in the registers every so many seconds.
interval=/sys/devices/system/machinecheck/machinecheck0/check_interval
[ ! -e $interval ] || usual=$(cat $interval)

cleanup() {
	[ ! -e $interval ] || echo "$usual" >$interval
	unload_driver
}

plan 3
load_driver
disk=$(disk_of "$(nfit_ns)")
start=$(cat "$ND/$(nfit_region)/resource")
[ ! -e $interval ] || echo 1 >$interval
dmesg -C
host corrected $((start + (40 << 20)))
check "the kernel logs the corrected error" wait_for 60 sh -c "dmesg | grep -q 'Hardware Error'"
host mce $((start + (50 << 20)))
check "an uncorrected error is listed" wait_for 60 grep -q . "/sys/block/$disk/badblocks"
is "the corrected one is not" "$(cat "/sys/block/$disk/badblocks")" "102400 8"
