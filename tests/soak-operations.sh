#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Disks, files and mappings survive an hour, or MINUTES, of random operations all at once, and memory does not grow.
#
# soak
# vm: --bare --append memmap=128M$512M --cpus 4
# kernel: device_dax
# timeout: 36000
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/operations.sh"

: "${SEED:=$(date +%s)}" "${MINUTES:=60}"
need_both_drivers
need pmem-io fio e2fsck ndctl jq
plan $((MINUTES * 16 + (MINUTES > 4)))
operations_prepare
for minute in $(seq "$MINUTES"); do
	operate 45
	check_handover "seed $SEED, minute $minute: "
	check_operations "seed $SEED, minute $minute: "
	# The first of them fill caches.
	[ "$minute" -lt 3 ] || allocations >/tmp/allocated.$((minute + 100000))
	load_driver
done
[ "$MINUTES" -le 4 ] || is_empty "nothing grows from each minute to the next" growing /tmp/allocated.*
