# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the kernel has allocated, and what of it grows.

# objects: the used objects of each slab cache, and the vmalloc mappings.
objects() {
	# Per-CPU reserves of the slab caches are not in use.
	for cache in /sys/kernel/slab/*/shrink; do
		echo 1 >"$cache"
	done
	# The kernel sizes these caches itself.
	awk 'NR > 2 && !/^(vmap_area|maple_node|damon_region|kmemleak|debug_objects_cache)/ { print $1, $2 }' /proc/slabinfo
	awk '!/unpurged/ { n++ } END { print "mappings", n }' /proc/vmallocinfo
}

# allocations: the same, and memory in units of 128K, sorted.
allocations() {
	sleep 1
	# No pipe: it would hide a failure, and nothing grows in an empty list.
	objects >/tmp/allocations
	awk '/^MemTotal/ { all = $2 } /^MemAvailable/ { print "memory", (all - $2) / 128 }' /proc/meminfo >>/tmp/allocations
	sort /tmp/allocations
}

# find_leaks COMMAND…: runs the command in three rounds of 8, and prints each kind of allocation that grows with every
# round: objects of a slab cache, vmalloc mappings, memory in units of 128K.
find_leaks() {
	"$@"
	"$@"
	allocations >/tmp/allocated.0
	for round in 1 2 3; do
		count=0
		while [ "$count" -lt 8 ]; do
			"$@"
			count=$((count + 1))
		done
		allocations >/tmp/allocated.$round
	done
	growing /tmp/allocated.0 /tmp/allocated.1 /tmp/allocated.2 /tmp/allocated.3
}

# growing FILE…: the kinds of allocation that grow by 7 or more, since one may go for another reason, from each of these files to the next.
growing() {
	growing_last=$1
	shift
	awk '{ print $1 }' "$growing_last" >/tmp/growing
	for growing_next; do
		join "$growing_last" "$growing_next" >/tmp/growing.both
		awk '$3 - $2 >= 7 { print $1 }' /tmp/growing.both >/tmp/growing.here
		join /tmp/growing /tmp/growing.here >/tmp/growing.all
		mv /tmp/growing.all /tmp/growing
		growing_last=$growing_next
	done
	cat /tmp/growing
}
