# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# A helper to measure how much RAM something takes.

# free_ram: KiB of RAM that is free, or used by caches that can be dropped. The lists of free pages that the kernel keeps for
# each CPU grow to more than 100 MiB, and are not in MemFree: they are emptied, which their new limit does.
free_ram() {
	sync
	echo 100000 >/proc/sys/vm/percpu_pagelist_high_fraction
	echo 3 >/proc/sys/vm/drop_caches
	for ram_cache in /sys/kernel/slab/*/shrink; do
		echo 1 >"$ram_cache"
	done
	echo 0 >/proc/sys/vm/percpu_pagelist_high_fraction
	awk '/^(MemFree|Cached|Buffers):/ { kib += $2 } END { print kib }' /proc/meminfo
}
