#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Memory that firmware does not report as persistent is never touched: reserved memory beside a device keeps its bytes.
#
# It does not appear in /proc/iomem either. There is another range at 2G, for clear-poison-verify-fails.
# vm: edges
. "$(dirname "$0")/lib/test.sh"

# reserved_bytes: memory beside the device, and far from it, as the host sees it.
reserved_bytes() {
	for address in 0x1f000000 0x1f001000 0x1ffff000 0x1ffffe00 0x22000000 0x22001000 0x22ffff00; do
		host hmp xp /32xg $address
	done
}

# disks: the address of each disk, but of the one at 2G.
disks() {
	for disk in /sys/block/pmem*; do
		cat "$disk/device/resource"
	done | grep -vx 0x80000000
}

# device_bytes: the start of the device, as the host sees it.
device_bytes() {
	host hmp xp /4xg 0x20000000
}

plan 6
# Nobody has looked at it yet. An enabled region pins the module of its bus.
! driver_loaded || unload_driver
disable_regions
[ ! -d /sys/module/nd_e820 ] || rmmod nd_e820
before=$(reserved_bytes)
empty=$(device_bytes)
load_driver
is "there is one disk" "$(disks)" 0x20000000
is "it is the persistent memory alone" "$(grep -i 'namespace\|persistent' /proc/iomem | tr '\n' ' ' | tr -s ' ')" \
	"20000000-21ffffff : Persistent Memory (legacy) 20000000-21ffffff : namespace0.0 80000000-80ffffff : Persistent Memory (legacy) \
80000000-80ffffff : namespace1.0 "
is "to look at it has changed nothing" "$(device_bytes)" "$empty"
check "it is written from end to end" pmem-io fill --direct "/dev/$(e820_disk)"
filled=$(device_bytes)
check_fails "and that is seen from outside" test "$filled" = "$empty"
unload_driver
is "what is beside it is as before" "$(reserved_bytes)" "$before"
