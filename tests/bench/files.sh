#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Measures the time and memory of "pmemctl errors" by the number of files, and how soon "pmemctl monitor" reports an
# error in a file that no process has open.
#
# `make bench-files` runs it in a VM. It overwrites the persistent memory of the VM.
#
#	files.sh [FILES]
TESTS=$(realpath "$(dirname "$0")/..")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"
# shellcheck source=tests/lib/measure.sh
. "$TESTS/lib/measure.sh"

FILES=${1:-20000}

cleanup() {
	[ -z "${watcher:-}" ] || kill "$watcher" 2>/dev/null
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
}

# row WHAT NANOSECONDS RATE PMEMCTL ITS-TOOLS: prints a row of the table.
row() {
	awk -v what="$1" -v count="$count" -v ns="$2" -v rate="$3" -v own="$4" -v tools="$5" \
		'BEGIN { printf "%-30s %8d %8.1f s %11s %6d KiB %9d KiB\n", what, count, ns / 1e9, rate, own, tools }'
}

# measure WHAT…: runs pmemctl errors, and prints a row.
measure() {
	echo 3 >/proc/sys/vm/drop_caches
	measured pmemctl errors --json "/dev/$disk"
	[ "$status" = 1 ] || { cat /tmp/errors && exit 1; }
	found=$(jq -c '[.errors[] | .owner.kind] | sort' /tmp/output)
	[ "$found" = '["file","file","file","free"]' ] || { cat /tmp/output /tmp/errors && exit 1; }
	jq -r '.errors[] | .owner | select(.kind == "file") | .paths[0]' /tmp/output | sed "s|^$MNT||" | sort >/tmp/found
	cmp -s /tmp/found /tmp/wanted || { cat /tmp/output && exit 1; }
	row "$1" "$ns" "$(awk -v ns="$ns" -v count="$count" 'BEGIN { printf "%.0f/s", count * 1e9 / ns }')" \
		"$own" "$tools"
}

# mark_some: makes sectors bad in two files of the first folder, in the last file that has a block, and in free space.
mark_some() {
	last=$(((count - 1) / 16 * 16))
	for file in "/0/0" "/0/512" "/$((last / 1000))/$last"; do
		echo "$(sector_of "$MNT$file") 1" >"/sys/block/$disk/badblocks"
		echo "$file"
	done | sort >/tmp/wanted
	free=$(xfs_io -r -c fsmap "$MNT" | awk '/free space/ && $NF >= 64 { sub(/.*\[/, ""); print $1 + 32; exit }')
	echo "$free 1" >"/sys/block/$disk/badblocks"
}

# has_reported COMPLETE: the monitor has reported that much.
has_reported() {
	grep -q "\"complete\":$1" /tmp/watch
}

# watch_one WHAT: prints two rows: when the monitor reports an error in a file that is not open, and when it has found
# the file.
watch_one() {
	echo 3 >/proc/sys/vm/drop_caches
	pmemctl monitor --json >/tmp/watch 2>&1 &
	watcher=$!
	wait_for 30 grep -q watching /tmp/watch
	file=/0/16
	own=0 tools=0 first=
	sector=$(sector_of "$MNT$file")
	start=$(now)
	echo "$sector 1" >"/sys/block/$disk/badblocks"
	until has_reported true; do
		[ -n "$first" ] || ! has_reported false || first=$(now)
		peaks "$watcher"
		sleep 0.02
	done
	end=$(now)
	paths=$(jq -r 'select(.complete) | .owner.paths[0]' /tmp/watch)
	[ "$paths" = "$MNT$file" ] || { cat /tmp/watch && exit 1; }
	[ -z "$first" ] || row "$1, watch: first" $((first - start)) - "$own" "$tools"
	row "$1, watch: file" $((end - start)) - "$own" "$tools"
	kill "$watcher"
	wait "$watcher" || :
	watcher=
}

need filefrag xfs_io jq pmem-io
load_driver
disk=$(plain_disk)
printf '%-30s %8s %10s %11s %10s %13s\n' 'FILE SYSTEM' FILES TIME RATE PMEMCTL 'ITS TOOLS'
for kind in 'ext4' 'xfs -m rmapbt=1' 'xfs -m rmapbt=0'; do
	case $kind in
	# As many inodes as files.
	ext4) options="-N $((FILES + FILES / 8 + 4096))" ;;
	*) options="${kind#* } -i maxpct=60" ;;
	esac
	wipefs -aq "/dev/$disk"
	# shellcheck disable=SC2086 # several words
	make_fs "${kind%% *}" "$disk" $options
	mkdir -p "$MNT"
	before=0
	for count in $((FILES / 100)) "$FILES"; do
		# Round up to whole folders.
		count=$(((count + 999) / 1000 * 1000))
		mount -o noatime "/dev/$disk" "$MNT"
		start=$(now)
		pmem-io files --from "$before" --to "$count" "$MNT"
		sync -f "$MNT"
		echo "# $((($(now) - start) / 1000000000)) s to make $((count - before)) files" >&2
		before=$count
		mark_some
		measure "$kind"
		watch_one "$kind"
		forget_errors "$disk"
		mark_some
		umount "$MNT"
		measure "$kind, not mounted"
		forget_errors "$disk"
	done
done
