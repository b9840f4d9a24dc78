#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Measures the cost of a namespace by its size, under both drivers: time to bind and unbind, memory while it is bound, the
# first mount, and unbind after files were mapped. Each time is the shortest of three.
#
# `make bench-sizes` runs it in VMs whose NVDIMM has labels. It overwrites the persistent memory of the VM.
TESTS=$(realpath "$(dirname "$0")/..")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"
# shellcheck source=tests/lib/ram.sh
. "$TESTS/lib/ram.sh"

cleanup() {
	umount $MNT 2>/dev/null || :
	unload_both_drivers
}

# microseconds COMMAND…: how long the command takes.
microseconds() {
	start=$(date +%s%N)
	"$@" >/dev/null || echo "# failed: $*" >&2
	echo $((($(date +%s%N) - start) / 1000))
}

bind() {
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/bind"
}

unbind() {
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
}

# use_files: maps 256 MiB of a file, by huge pages where they are aligned.
use_files() {
	mount_dax "$disk"
	pmem-io map-write $MNT/file --length "$MAPPED" --durable fsync
	umount $MNT
}

# measure MODE: prints a line "MODE,OPERATION,VALUE" for each figure.
measure() {
	unbind
	before=$(free_ram)
	bind
	[ "$1" != mem ] || echo "$1,memory,$((before - $(free_ram)))"
	for _ in 1 2 3; do
		echo "$1,unbind,$(microseconds unbind)"
		echo "$1,bind,$(microseconds bind)"
	done
	[ "$1" = dev ] || return 0
	make_fs ext4 "$disk" >/dev/null
	echo "$1,first mount,$(microseconds mount_dax "$disk")"
	truncate -s "$MAPPED" $MNT/file && fallocate -l "$MAPPED" $MNT/file
	umount $MNT
	for _ in 1 2 3; do
		use_files
		echo "$1,unbind after $((MAPPED >> 20)) MiB were mapped,$(microseconds unbind)"
		bind
	done
}

need pmem-io
MAPPED=$((256 << 20))
mkdir -p $MNT
modprobe ext4
load_driver
fresh_labels
region=$(nfit_region)
size=$(cat "$ND/$region/size")
# Without struct pages, and with these in ordinary memory or on the device.
modes='raw mem dev'
# A struct page has 64 bytes for each 4 KiB.
[ $((size / 64 / 1024)) -lt "$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)" ] || {
	echo "# no RAM for the struct pages of $((size >> 30)) GiB" >&2
	modes='raw dev'
}
for mode in $modes; do
	case $mode in
	raw) json=$(make_namespace -r "$region" -m raw) ;;
	*) json=$(make_namespace -r "$region" -m fsdax -M "$mode") ;;
	esac
	disk=$(echo "$json" | jq -r .blockdev)
	namespace=$(echo "$json" | jq -r .dev)
	for _ in 1 2; do
		device=$(basename "$(readlink -f "/sys/block/$disk/device")")
		measure "$mode" | sed "s/^/$DRIVER,/" >>/tmp/figures
		swap_drivers
	done
	ndctl destroy-namespace -f "$namespace" >/dev/null 2>&1
done
awk -F, -v size=$((size >> 30)) '
	{ key = $2 "," $3; if (!(key in seen)) { seen[key] = ++n; keys[n] = key }
	  k = $1 SUBSEP key; if (!(k in best) || $4 < best[k]) best[k] = $4 }
	END {
		printf "%5s  %-11s %-34s %12s %12s %6s\n", "GiB", "mode", "", "nd_pmem", "rust_pmem", "ratio"
		for (i = 1; i <= n; i++) {
			split(keys[i], part, ",")
			c = best["nd_pmem" SUBSEP keys[i]]; r = best["rust_pmem" SUBSEP keys[i]]
			unit = part[2] == "memory" ? "KiB" : "us"
			ratio = c > 0 ? sprintf("%.2f", r / c) : "-"
			printf "%5d  %-11s %-34s %9d %-3s %8d %-3s %6s\n", size, part[1] == "raw" ? "raw" : "fsdax (" part[1] ")", part[2], c, unit, r, unit, ratio
		}
	}' /tmp/figures
