#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Disks, files and mappings survive an hour, or MINUTES, of random operations all at once, and memory does not grow.
#
# The files are of ext4 in the first half and of XFS in the second, which reports it if its disk goes away in a transaction, and
# drops pages of files that processes map anew (see mce-during-unbind-of-mounted-disk). The bus has commands in the first half if the
# seed is odd, and otherwise in the second.
#
# With slab_debug=U, slab caches are not merged and keep no objects for each processor: their counts are exact.
# soak
# vm: no-debug 4
# expect-splat: Internal error xfs_trans_cancel
# expect-splat: WARN() < xfs_dax_failure_fn
# timeout: 36000
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/operations.sh"
. "$(dirname "$0")/lib/growth.sh"

: "${SEED:=$(date +%s)}" "${MINUTES:=60}"

# grown FILE…: the kinds of allocation of which each of the last third of these files has at least 8 more than any of the first, and
# their numbers in all files. It also finds what grows slowly, but takes many files. Not bios: the kernel keeps freed ones for each
# processor.
grown() {
	awk -v third=$(($# / 3)) -v files=$# '
		FNR == 1 { file++ }
		/^(bio|biovec)-/ { next }
		{ all[$1] = all[$1] " " $2 }
		file <= third && $2 > most[$1] { most[$1] = $2 }
		file > files - third && (!($1 in least) || $2 < least[$1]) { least[$1] = $2 }
		END { for (kind in least) if (kind in most && least[kind] >= most[kind] + 8) print kind all[kind] }' "$@"
}

# soak_on FILE-SYSTEM MINUTES COMMANDS: 18 subtests for each minute, and one for more than 4 of them.
soak_on() {
	rm -f /tmp/allocated.*
	# All files are there before the first sample, which counts them.
	for minute in $(seq 3 "$2"); do
		: >/tmp/allocated.$((minute + 100000))
	done
	operations_prepare "$1" "$3"
	for minute in $(seq "$2"); do
		operate 45
		check_handover "seed $SEED, $1, minute $minute: "
		check_operations "seed $SEED, $1, minute $minute: "
		# The first of them fill caches. Those of inodes and names grow with the files that tests make.
		echo 2 >/proc/sys/vm/drop_caches
		[ "$minute" -lt 3 ] || allocations >/tmp/allocated.$((minute + 100000))
		load_driver
	done
	case $2 in
	[0-4]) ;;
	[5-9] | 10) is_empty "$1: nothing grows from each minute to the next" growing /tmp/allocated.* ;;
	*) is_empty "$1: nothing grows" grown /tmp/allocated.* ;;
	esac
	provider_cleanup
}

need_both_drivers
need pmem-io fio e2fsck xfs_repair ndctl jq
xfs=$((MINUTES / 2))
commands=$((SEED % 2))
ext4=$((MINUTES - xfs))
plan $((MINUTES * 18 + (ext4 > 4) + (xfs > 4)))
soak_on ext4 $ext4 $commands
soak_on xfs $xfs $((1 - commands))
