#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Repeated load and unload with a namespace to bind leaves nothing behind.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/growth.sh"

reload() {
	rmmod "$DRIVER"
	case $DRIVER in
	rust_pmem) insmod "$MODULE" ;;
	*) modprobe "$DRIVER" ;;
	esac
}

list_present() {
	grep -c pmem /proc/iomem /proc/modules /proc/partitions
	find /sys/block /sys/class/bdi /dev /sys/kernel/debug/block -maxdepth 1 -name '*pmem*' | sort
}

plan 3
provide size=$((8 << 20))
before=$(list_present)
is_empty "nothing grows by each time" find_leaks reload
settle
is "what is there in the end" "$(list_present)" "$before"
check "the disk reads" read_sectors "$DISK" 0 8
