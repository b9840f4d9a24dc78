# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# A helper to measure how much RAM something takes.

# free_ram: KiB of RAM that is free, or used by caches that can be dropped.
free_ram() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	for ram_cache in /sys/kernel/slab/*/shrink; do
		echo 1 >"$ram_cache"
	done
	awk '/^(MemFree|Cached|Buffers):/ { kib += $2 } END { print kib }' /proc/meminfo
}
