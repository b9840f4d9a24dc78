#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Memory that firmware does not report as persistent is never touched: reserved memory beside a device keeps its bytes.
#
# It does not appear in /proc/iomem either.
# vm: --bare --e820 32M@512M --append memmap=16M$496M --append memmap=16M$544M
. "$(dirname "$0")/lib/test.sh"

# reserved_bytes: memory beside the device, and far from it, as the host sees it.
reserved_bytes() {
	for address in 0x1f000000 0x1f001000 0x1ffff000 0x1ffffe00 0x22000000 0x22001000 0x22ffff00; do
		host hmp xp /32xg $address
	done
}

# device_bytes: the start of the device, as the host sees it.
device_bytes() {
	host hmp xp /4xg 0x20000000
}

plan 6
before=$(reserved_bytes)
empty=$(device_bytes)
load_driver
is "there is one disk" "$(echo /dev/pmem*)" /dev/pmem0
is "it is the persistent memory alone" "$(grep -i 'namespace\|persistent' /proc/iomem | tr '\n' ' ' | tr -s ' ')" \
	"20000000-21ffffff : Persistent Memory (legacy) 20000000-21ffffff : namespace0.0 "
is "to look at it has changed nothing" "$(device_bytes)" "$empty"
check "it is written from end to end" pmem-io fill --direct /dev/pmem0
filled=$(device_bytes)
check_fails "and that is seen from outside" test "$filled" = "$empty"
unload_driver
is "what is beside it is as before" "$(reserved_bytes)" "$before"
