#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Loaded and unloaded again and again, with a namespace to bind: nothing is left behind.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cycle() {
	rmmod "$DRIVER"
	case $DRIVER in
	rust_pmem) insmod "$MODULE" ;;
	*) modprobe "$DRIVER" ;;
	esac
}

present() {
	grep -c pmem /proc/iomem /proc/modules /proc/partitions
	find /sys/block /sys/class/bdi /dev /sys/kernel/debug/block -maxdepth 1 -name '*pmem*' | sort
}

plan 3
provide size=$((8 << 20))
before=$(present)
is "nothing grows by each time" "$(find_leaks cycle)" ""
settle
is "what is there in the end" "$(present)" "$before"
check "the disk reads" read_sectors "$DISK" 0 8
