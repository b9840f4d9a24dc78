#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What firmware does not call persistent is never touched: reserved memory on both sides of a device that is written from end
# to end keeps its bytes, and is nobody's in /proc/iomem.
# vm: --bare --e820 32M@512M --append memmap=16M$496M --append memmap=16M$544M
. "$(dirname "$0")/lib/test.sh"

# Bytes beside the device, and far from it, in reserved memory: as the outside sees them.
looks() {
	for address in 0x1f000000 0x1f001000 0x1ffff000 0x1ffffe00 0x22000000 0x22001000 0x22ffff00; do
		host hmp xp /32xg $address
	done
}

# inside: the start of the device.
inside() {
	host hmp xp /4xg 0x20000000
}

plan 6
before=$(looks)
empty=$(inside)
load_driver
is "there is one disk" "$(echo /dev/pmem*)" /dev/pmem0
is "it is the persistent memory alone" "$(grep -i 'namespace\|persistent' /proc/iomem | tr '\n' ' ' | tr -s ' ')" \
	"20000000-21ffffff : Persistent Memory (legacy) 20000000-21ffffff : namespace0.0 "
is "to look at it has changed nothing" "$(inside)" "$empty"
check "it is written from end to end" pmem-io fill --direct /dev/pmem0
check_fails "and that is seen from outside" test "$(inside)" = "$empty"
unload_driver
is "what is beside it is as before" "$(looks)" "$before"
