#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Measures the time and memory of pmemctl's commands by the number of errors: one in each other page of a file, on ext4
# and XFS.
#
# `make bench-pmemctl` runs it in a VM. It overwrites the persistent memory of the VM.
#
#	pmemctl.sh [ERRORS]
TESTS=$(realpath "$(dirname "$0")/..")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"
# shellcheck source=tests/lib/badblocks.sh
. "$TESTS/lib/badblocks.sh"
# shellcheck source=tests/lib/measure.sh
. "$TESTS/lib/measure.sh"

ERRORS=${1:-10000}
STRIDE=8192

cleanup() {
	[ -z "$watcher" ] || kill "$watcher" 2>/dev/null
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	rm -rf /run/watch /run/scrub
}

# measure WHAT STATUS COMMAND…: measures a command of pmemctl, which has to end with this status, and prints a row.
measure() {
	measure_what=$1 measure_status=$2
	shift 2
	measured pmemctl "$@"
	[ "$status" = "$measure_status" ] || { echo "# pmemctl $*: status $status" && head -n 20 /tmp/output /tmp/errors && exit 1; }
	row "$measure_what"
}

# row WHAT: prints the measurements.
row() {
	awk -v what="$kind, $1" -v count="$count" -v ns="$ns" -v own="$own" -v tools="$tools" \
		'BEGIN { printf "%-34s %8d %8.2f s %6d KiB %9d KiB\n", what, count, ns / 1e9, own, tools }'
}

# measure_monitor: measures how long pmemctl monitor takes to report all errors that are listed.
measure_monitor() {
	own=0 tools=0
	mkfifo /run/watch
	measured_start=$(now)
	pmemctl monitor --now --json >/run/watch 2>/tmp/errors &
	watcher=$!
	awk -v count="$count" '/"complete":true/ && ++seen == count { exit } END { exit seen < count }' /run/watch &
	reader=$!
	peaks_until "$reader" "$watcher"
	ns=$(($(now) - measured_start))
	wait "$reader" || { echo "# pmemctl monitor has ended" && head -n 20 /tmp/errors && exit 1; }
	kill "$watcher" 2>/dev/null || :
	wait "$watcher" || :
	watcher=
	rm /run/watch
	row "monitor --now"
}

# list_errors: adds each other page of the file to the list of errors.
list_errors() {
	filefrag -e -b1 -v "$MNT/file" | tr :. '  ' |
		awk -v stride=$STRIDE -v count="$count" -v length_="$PAGE" '
			$1 ~ /^[0-9]+$/ && $2 ~ /^[0-9]+$/ {
				for (at = $4; at < $5 && n < count; at += stride) {
					printf "%.0f %d\n", at, length_
					n++
				}
			}' |
		edit_list add "$list"
}

watcher=
need filefrag jq pmem-io
load_driver
disk=$(e820_disk)
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
list=$(errors_list_of "$(e820_ns)")
printf '%-34s %8s %10s %10s %13s\n' COMMAND ERRORS TIME PMEMCTL 'ITS TOOLS'
for kind in ext4 xfs; do
	wipefs -aq "/dev/$disk"
	make_fs "$kind" "$disk"
	mount_dax "$disk"
	fallocate -l $((ERRORS * STRIDE)) "$MNT/file"
	for count in $((ERRORS / 10)) "$ERRORS"; do
		list_errors
		measure "list" 0 list
		measure "status" 1 status
		measure "metrics" 0 metrics
		measure "errors DISK" 1 errors --json "/dev/$disk"
		[ "$(jq '.errors | length' /tmp/output)" = "$count" ] || { echo "# $(jq '.errors | length' /tmp/output) errors were found" && exit 1; }
		measure "errors FILE" 1 errors --json "$MNT/file"
		measure_monitor
		measure "scrub" 1 scrub --anyway --restart --rate 16G --state-dir /run/scrub "$disk"
		measure "errors save" 0 errors save --all
		measure "repair: good after all" 0 repair --zero "$MNT/file"
		cmp "$list" /dev/null || { echo "# errors are left" && exit 1; }
		list_errors
		measure "repair --trust-list --zero" 0 repair --trust-list --zero "$MNT/file"
		cmp "$list" /dev/null || { echo "# errors are left" && exit 1; }
	done
	umount "$MNT"
done
