#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Disks, files and mappings survive an hour, or MINUTES, of random operations all at once, and memory does not grow.
#
# Whether it grows is seen in more than 20 minutes.
# The files are of ext4 in the first half and of XFS in the second, which reports it if its disk goes away in a transaction, or
# while it is unmounted.
# soak
# vm: --bare --append memmap=256M$512M --append vm_debug=- --append page_poison=0 --append init_on_alloc=1 --cpus 4
# kernel: device_dax
# expect-splat: Internal error xfs_trans_cancel
# expect-splat: at thaw_super+
# timeout: 36000
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/operations.sh"

: "${SEED:=$(date +%s)}" "${MINUTES:=60}"

# grown MINUTES: the kinds of allocation of which there were at least 8 more in each of the last third of these minutes than in any
# of the first.
grown() {
	awk -v first=$((2 + ($1 - 2) / 3)) -v last=$(($1 - ($1 - 2) / 3)) '
		$1 <= first && $3 > most[$2] { most[$2] = $3 }
		$1 > last && (!($2 in least) || $3 < least[$2]) { least[$2] = $3 }
		END { for (kind in least) if (kind in most && least[kind] >= most[kind] + 8) print kind, most[kind], least[kind] }' /tmp/allocated
}

# soak_on FILE-SYSTEM MINUTES: 16 subtests for each minute, and one for more than 10 of them.
soak_on() {
	: >/tmp/allocated
	operations_prepare "$1"
	for minute in $(seq "$2"); do
		operate 45
		check_handover "seed $SEED, $1, minute $minute: "
		check_operations "seed $SEED, $1, minute $minute: "
		# The first of them fill caches. Those of inodes and names grow with the files that tests make.
		echo 2 >/proc/sys/vm/drop_caches
		[ "$minute" -lt 3 ] || allocations | sed "s/^/$minute /" >>/tmp/allocated
		load_driver
	done
	[ "$2" -le 10 ] || is_empty "$1: nothing grows" grown "$2"
	provider_cleanup
}

need_both_drivers
need pmem-io fio e2fsck xfs_repair ndctl jq
xfs=$((MINUTES / 2))
ext4=$((MINUTES - xfs))
plan $((MINUTES * 16 + (ext4 > 10) + (xfs > 10)))
soak_on ext4 $ext4
soak_on xfs $xfs
