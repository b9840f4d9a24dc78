#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What each form of a namespace costs: RAM, as MemFree and the kernel's own count of what page maps take say it, and capacity; and that
# its data begin where the alignment says. Raw, sector, fsdax and devdax, page map in RAM or on the device, aligned to 4 KiB, 2 MiB and
# 1 GiB.
# compare
# vm: --nvdimm size=4G,labels --nvdimm size=2G
# timeout: 300
. "$(dirname "$0")/lib/test.sh"

MIB=$((1 << 20))
SIZE=$((3072 * MIB))
# The page map of a namespace of this size: 64 bytes for each page of 4 KiB.
MAP=$((SIZE / 64))

cleanup() {
	umount $MNT 2>/dev/null
	ndctl disable-region all >/dev/null 2>&1
	modprobe -r device_dax dax_pmem
}

# free_mib: MemFree, with nothing in RAM that could be dropped.
free_mib() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	awk '/^MemFree:/ {print int($2 / 1024)}' /proc/meminfo
}

# falls_by MIB: whether MemFree does when the namespace is enabled: within 20 MiB, since the kernel's caches breathe, at one of three times.
falls_by() {
	for _ in 1 2 3; do
		ndctl disable-namespace "$namespace" >/dev/null 2>&1
		fall=$(free_mib)
		ndctl enable-namespace "$namespace" >/dev/null 2>&1
		settle
		fall=$((fall - $(free_mib)))
		echo "by $fall MiB"
		[ $fall -lt $(($1 - 20)) ] || [ $fall -gt $(($1 + 20)) ] || return 0
	done
	return 1
}

# costs NAME MAP RAM ARGUMENTS OF ndctl create-namespace…: so many bytes of page map, of which so many are in RAM.
costs() {
	name=$1 map=$2 ram=$(($3 / MIB))
	shift 3
	fresh_labels
	ndctl create-namespace -r "$region" -s $SIZE "$@" >/tmp/namespace-mode-overhead.json
	settle
	namespace=$(jq -r .dev /tmp/namespace-mode-overhead.json)
	disk=$(jq -r '.blockdev // empty' /tmp/namespace-mode-overhead.json)
	check "$name: MemFree falls by $ram MiB" falls_by $ram
	is "$name: the page map, bytes" $(($(awk '$1 == "nr_memmap_pages" {print $2}' /proc/vmstat) * 4096)) "$map"
}

# capacity NAME BYTES WANTED
capacity() {
	is "$1: capacity, of 3 GiB" "$2" "$3"
}

# multiple OF: whether the physical address where the data begin is one.
multiple() {
	printf '%s\n' "$1"
	[ $(($1 % $2)) -eq 0 ]
}

# rounded BYTES ALIGN: memory has pages in pieces of 2 MiB, whatever the alignment is.
rounded() {
	piece=$(($2 > 2 * MIB ? $2 : 2 * MIB))
	echo $((($1 + piece - 1) / piece * piece))
}

# fsdax NAME ALIGN
fsdax() {
	holder=$(cat "$ND/$namespace/holder")
	check "$1: data begin at a multiple of it" multiple "$(cat "$ND/$holder/resource")" "$2"
	make_fs ext4 "$disk"
	mount_dax "$disk"
	fallocate -l 2M $MNT/file
	check "$1: a file is stored to" pmem-io map-write --sync --durable flush $MNT/file
	check "$1: and read" pmem-io verify $MNT/file
	umount $MNT
}

# devdax NAME ALIGN: as much as a smallest page is mapped, stored to, and read; less than that can't be mapped.
devdax() {
	chardev=/dev/$(jq -r '.daxregion.devices[0].chardev' /tmp/namespace-mode-overhead.json)
	holder=$(cat "$ND/$namespace/holder")
	check "$1: data begin at a multiple of it" multiple "$(cat "$ND/$holder/resource")" "$2"
	record_result "$1: a mapping of 4 KiB" pmem-io map-write --length 4096 "$chardev"
	if [ "$2" -gt $((2 * MIB)) ]; then
		record_result "$1: a mapping of 2 MiB" pmem-io map-write --length 2M "$chardev"
	else
		check "$1: a mapping of 2 MiB" sh -c "pmem-io map-write --length 2M $chardev && pmem-io map-verify --length 2M $chardev"
	fi
}

plan 94
load_driver
modprobe device_dax
region=$(labelled_region)
costs raw 0 0 -m raw
capacity raw "$(blockdev --getsize64 "/dev/$disk")" $SIZE
costs sector 0 0 -m sector
record "sector: capacity, of 3 GiB" "$(blockdev --getsize64 "/dev/$disk")"
for align in 4096 $((2 * MIB)) $((1024 * MIB)); do
	form="fsdax, map in RAM, $align"
	costs "$form" $MAP $MAP -m fsdax -M mem -a $align
	capacity "$form" "$(blockdev --getsize64 "/dev/$disk")" $((SIZE - $(rounded 8192 $align)))
	fsdax "$form" $align

	form="fsdax, map on the device, $align"
	costs "$form" $MAP 0 -m fsdax -M dev -a $align
	capacity "$form" "$(blockdev --getsize64 "/dev/$disk")" $((SIZE - $(rounded $((MAP + 8192)) $align)))
	fsdax "$form" $align

	# Pages that are mapped together alone share most of their page map, where it is in RAM.
	case $align in
	4096) shared=$MAP ;;
	2097152) shared=$((MAP / 4)) ;;
	*) shared=$((SIZE * 2 * 4096 / align)) ;;
	esac
	form="devdax, map in RAM, $align"
	costs "$form" $shared $shared -m devdax -M mem -a $align
	capacity "$form" "$(jq .size /tmp/namespace-mode-overhead.json)" $((SIZE - $(rounded 8192 $align)))
	devdax "$form" $align

	form="devdax, map on the device, $align"
	costs "$form" $MAP 0 -m devdax -M dev -a $align
	capacity "$form" "$(jq .size /tmp/namespace-mode-overhead.json)" $((SIZE - $(rounded $((MAP + 8192)) $align)))
	devdax "$form" $align
done

# Without a label: the namespace is all of its region.
align=$((1024 * MIB))
for namespace in $(namespaces ACPI.NFIT); do
	has_labels "$namespace/.." || break
done
for form in "fsdax -M mem" "fsdax -M dev" "devdax -M mem" "devdax -M dev"; do
	# shellcheck disable=SC2086 # words
	make_namespace -e "$namespace" -a "$align" -m $form >/tmp/namespace-mode-overhead.json
	disk=$(jq -r '.blockdev // empty' /tmp/namespace-mode-overhead.json)
	record "no label, $form, $align: capacity, of 2 GiB" "$(jq .size /tmp/namespace-mode-overhead.json)"
	case $form in
	fsdax*) fsdax "no label, $form, $align" "$align" ;;
	*) devdax "no label, $form, $align" "$align" ;;
	esac
done
