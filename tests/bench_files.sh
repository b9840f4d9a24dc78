#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# How long "pmemctl bad" takes and how much memory it needs, by the number of files. `make bench-files` runs it in a virtual
# machine whose only persistent memory it may have.
#
#	bench_files.sh [FILES]
. "$(dirname "$0")/lib.sh"

FILES=${1:-20000}

cleanup() {
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
}

# more_files FROM TO: files of these numbers, a thousand in a folder; of most of them only the size is there, one in 16 has a block.
more_files() {
	folder=$(($1 / 1000))
	while [ $((folder * 1000)) -lt "$2" ]; do
		mkdir -p "$MNT/$folder"
		cd "$MNT/$folder"
		seq $((folder * 1000)) $((folder * 1000 + 999)) | xargs truncate -s 1M
		echo x | tee $(seq $((folder * 1000)) 16 $((folder * 1000 + 999))) >/dev/null
		cd /
		folder=$((folder + 1))
	done
	sync -f "$MNT"
}

# peak PID…: the largest memory that one of these processes has had, in KiB.
peak() {
	for peak_pid; do
		cat "/proc/$peak_pid/status" 2>/dev/null || :
	done | awk -v most="$most" '/^VmHWM:/ && $2 > most { most = $2 } END { print most + 0 }'
}

# measure WHAT…: pmemctl bad, and a row of the table.
measure() {
	start=$(date +%s%N)
	pmemctl bad --json "/dev/$disk" >/tmp/said 2>/tmp/errors &
	pid=$!
	own=0 tools=0
	while kill -0 "$pid" 2>/dev/null; do
		most=$own
		own=$(peak "$pid")
		most=$tools
		# shellcheck disable=SC2046 # several numbers
		tools=$(peak $(cat "/proc/$pid/task/$pid/children" 2>/dev/null || :))
		sleep 0.05
	done
	status=0
	wait "$pid" || status=$?
	end=$(date +%s%N)
	[ "$status" = 1 ] || { cat /tmp/errors && exit 1; }
	found=$(jq -r '[.[] | select(.owner.kind == "file") | .owner.paths[0]] | length' /tmp/said)
	[ "$found" = "$hurt" ] || { echo "$found files were found, and not $hurt" && cat /tmp/said /tmp/errors && exit 1; }
	awk -v ns="$((end - start))" -v own="$own" -v tools="$tools" -v count="$count" -v what="$*" \
		'BEGIN { printf "%-28s %8d %8.1f s %9.0f/s %6d KiB %9d KiB\n", what, count, ns / 1e9, count * 1e9 / ns, own, tools }'
}

# mark_some: a bad sector in a file of the first folder, one in the last file, and one that is free.
mark_some() {
	hurt=0
	for file in "$MNT/0/0" "$MNT/0/512" "$MNT/$(((count - 1) / 1000))/$(((count - 1) / 1000 * 1000 + 992))"; do
		sector=$(filefrag -e -b512 -v "$file" | awk '$1 == "0:" { print $4 + 0 }')
		echo "$sector 1" >"/sys/block/$disk/badblocks"
		hurt=$((hurt + 1))
	done
	echo "$(($(cat "/sys/block/$disk/size") - 8)) 1" >"/sys/block/$disk/badblocks"
}

need filefrag jq xargs truncate
load_driver
disk=$(plain_disk)
printf '%-28s %8s %10s %11s %10s %13s\n' 'FILE SYSTEM' FILES TIME RATE PMEMCTL 'ITS TOOLS'
for kind in 'ext4' 'xfs -m rmapbt=1' 'xfs -m rmapbt=0'; do
	case $kind in
	# As many inodes as files.
	ext4) options="-N $((FILES + FILES / 8 + 4096))" ;;
	*) options=${kind#* } ;;
	esac
	wipefs -aq "/dev/$disk"
	# shellcheck disable=SC2086 # several words
	make_fs "${kind%% *}" "$disk" $options
	mkdir -p "$MNT"
	before=0
	for count in $((FILES / 100)) "$FILES"; do
		# Whole folders.
		count=$(((count + 999) / 1000 * 1000))
		mount -o noatime "/dev/$disk" "$MNT"
		more_files "$before" "$count"
		before=$count
		mark_some
		echo 3 >/proc/sys/vm/drop_caches
		measure "$kind"
		umount "$MNT"
		measure "$kind, not mounted"
		forget_errors "$disk"
	done
done
