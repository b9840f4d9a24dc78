#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Loaded and unloaded again and again, with a namespace to bind: nothing is left behind.
# vm: --bare --append memmap=64M$512M
. "$(dirname "$0")/../provider/lib.sh"

cycle() {
	rmmod "$DRIVER"
	case $DRIVER in
	rust_pmem) insmod "$MODULE" ;;
	*) modprobe "$DRIVER" ;;
	esac
}

# What the kernel has allocated: objects of each cache, mappings, pieces of 128K.
used() {
	sleep 0.5
	{
		awk 'NR > 2 { print $1, $2 }' /proc/slabinfo
		awk 'END { print "mappings", NR }' /proc/vmallocinfo
		awk '/^MemTotal/ { all = $2 } /^MemAvailable/ { print "memory", (all - $2) / 128 }' /proc/meminfo
	} | grep -v "^vmap_area\|^maple_node" | sort
}

present() {
	cat /proc/iomem /proc/modules | grep -c pmem
	ls /sys/block /sys/class/bdi /dev /sys/kernel/debug/block | grep -c pmem
}

plan 3
provide size=$((8 << 20))
before=$(present)
cycle
used >/tmp/used.0
for round in 1 2; do
	count=0
	while [ "$count" -lt 16 ]; do
		cycle
		count=$((count + 1))
	done
	used >/tmp/used.$round
	# Not twice the same by chance.
	join /tmp/used.$((round - 1)) /tmp/used.$round | awk '$3 - $2 >= 12 { print $1 }' >/tmp/grown.$round
done
is "nothing grows by each time" "$(comm -12 /tmp/grown.1 /tmp/grown.2)" ""
settle
is "what is there in the end" "$(present)" "$before"
check "the disk reads" read_sectors "$DISK" 0 8
