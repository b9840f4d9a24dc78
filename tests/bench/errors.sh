#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Measures the cost of many isolated errors: the time to add them, memory, I/O beside them and on them, the time to
# rebind the namespace, and to repair all.
#
# `make bench-errors` runs it in a VM. It overwrites the persistent memory of the VM.
#
#	errors.sh [ERRORS]
TESTS=$(realpath "$(dirname "$0")/..")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"
# shellcheck source=tests/lib/badblocks.sh
. "$TESTS/lib/badblocks.sh"
# shellcheck source=tests/lib/ram.sh
. "$TESTS/lib/ram.sh"
# shellcheck source=tests/lib/measure.sh
. "$TESTS/lib/measure.sh"

ERRORS=${1:-100000}
STRIDE=8192
# The number of reads and writes that are timed.
PIECES=$((ERRORS < 20000 ? ERRORS : 20000))

cleanup() {
	unload_driver
}

# row WHAT COUNT NANOSECONDS
row() {
	awk -v what="$1" -v count="$2" -v ns="$3" \
		'BEGIN { printf "%-44s %9d %9.2f s %10.0f ns each\n", what, count, ns / 1e9, ns / count }'
}

# timed WHAT COUNT COMMAND…: runs the command and prints a row.
timed() {
	timed_what=$1
	timed_count=$2
	shift 2
	timed_start=$(now)
	"$@"
	timed_end=$(now)
	row "$timed_what" "$timed_count" $((timed_end - timed_start))
}

# grown BEFORE: the memory allocated since then, and the slab caches that grew most.
grown() {
	grown_now=$(free_ram)
	awk -v kib=$(($1 - grown_now)) -v count="$ERRORS" \
		'BEGIN { printf "%-44s %9d %9d KiB %8.0f bytes each\n", "memory", count, kib, kib * 1024 / count }'
	slabs >/tmp/slabs.now
	join /tmp/slabs.before /tmp/slabs.now | awk '{ n = ($4 - $2) * $5 / 1024; if (n > 64) printf "%9d KiB %s\n", n, $1 }' |
		sort -rn | head -n 4 | sed 's/^/  of them /'
}

# slabs: the name, the number of objects and the object size of each slab cache.
slabs() {
	awk 'NR > 2 { print $1, $2, $4 }' /proc/slabinfo | sort
}

# expect_output OUTPUT COMMAND…: fails unless the command prints OUTPUT.
expect_output() {
	expect_wanted=$1
	shift
	expect_got=$("$@" 2>&1)
	[ "$expect_got" = "$expect_wanted" ] || {
		printf '# %s: %s, not %s\n' "$*" "$expect_got" "$expect_wanted"
		exit 1
	}
}

# time_io WHEN: I/O to good pages beside errors.
time_io() {
	for io_access in read write; do
		timed "$1: $io_access 4K of a good page" $PIECES \
			expect_output "ok: $PIECES" places "$disk" $io_access --offset 4K --stride $STRIDE --count $PIECES --order shuffled
	done
}

need pmem-io
load_driver
namespace=$(e820_ns)
[ -n "$namespace" ] || namespace=$(nfit_ns)
disk=$(disk_of "$namespace")
list=$(errors_list_of "$namespace")
[ $((ERRORS * STRIDE)) -le "$(cat "$ND/$namespace/size")" ] || { echo "# too many errors for this memory" && exit 1; }

time_io "no error"
echo "add 0 $PAGE" >"$list"
time_io "one error"
echo "drop 0 $PAGE" >"$list"

list_every 0 $STRIDE "$ERRORS" >/tmp/bad
slabs >/tmp/slabs.before
before=$(free_ram)
timed "add" "$ERRORS" expect_output '' edit_list add "$list" </tmp/bad
grown "$before"
time_io "all errors"
timed "all errors: read 4K of a bad page" $PIECES \
	expect_output "Input/output error: $PIECES" places "$disk" read --stride $STRIDE --count $PIECES --order shuffled
timed "read errors/list" "$ERRORS" cp "$list" /tmp/list
[ "$(sorted_ranges /tmp/list | digest)" = "$(digest </tmp/bad)" ] || { echo "# errors/list is not what was added" && exit 1; }
timed "unbind and bind" "$ERRORS" rebind "$namespace"
[ "$(sorted_ranges "$list" | digest)" = "$(digest </tmp/bad)" ] || { echo "# errors/list is not what was added, bound again" && exit 1; }
timed "repair by writes of a page" "$ERRORS" expect_output "ok: $ERRORS" places "$disk" write --stride $STRIDE --count "$ERRORS" --order shuffled
cmp "$list" /dev/null || { echo "# errors are left" && exit 1; }
edit_list add "$list" </tmp/bad
timed "repair by zeroes" "$ERRORS" blkdiscard -f -z "/dev/$disk"
cmp "$list" /dev/null || { echo "# errors are left" && exit 1; }
