#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Each mode of a namespace costs the expected RAM and capacity, and its data begins at the requested alignment.
#
# Checks MemFree and nr_memmap_pages. Raw, sector, fsdax and devdax, struct pages in RAM or on the device, aligned to 4
# KiB, 2 MiB and 1 GiB.
# compare
# kernel: device_dax vmf_insert_folio_pud
# vm: big 2
# timeout: 600
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/ram.sh"

MIB=$((1 << 20))
SIZE=$((3072 * MIB))
# The struct pages of a namespace of this size: 64 bytes for each page of 4 KiB.
MAP=$((SIZE / 64))
# KASAN's shadow of memory in the vmalloc area, where that of a namespace without struct pages is mapped.
SHADOW=0
! grep -q ' __kasan_populate_vmalloc$' /proc/kallsyms || SHADOW=$((SIZE / 8))

cleanup() {
	umount $MNT 2>/dev/null
	fresh_labels
	raw_disk "$(plain_namespace)" >/dev/null
	modprobe -r device_dax dax_pmem
}

# free_ram_falls_by MIB: enabling the namespace takes that much RAM, within 20 MiB because caches vary, in one of three
# tries.
free_ram_falls_by() {
	for _ in 1 2 3; do
		ndctl disable-namespace "$namespace" >/dev/null 2>&1
		fall=$(free_ram)
		ndctl enable-namespace "$namespace" >/dev/null 2>&1
		settle
		fall=$(((fall - $(free_ram)) / 1024))
		echo "by $fall MiB"
		[ $fall -lt $(($1 - 20)) ] || [ $fall -gt $(($1 + 20)) ] || return 0
	done
	return 1
}

# test_cost NAME MAP RAM ARGUMENTS OF ndctl create-namespace…: MAP bytes of struct pages, of which RAM bytes are in RAM.
test_cost() {
	name=$1 map=$2 ram=$(($3 / MIB))
	shift 3
	fresh_labels
	ndctl create-namespace -r "$region" -s $SIZE "$@" >/tmp/namespace-mode-overhead.json
	settle
	namespace=$(jq -r .dev /tmp/namespace-mode-overhead.json)
	disk=$(jq -r '.blockdev // empty' /tmp/namespace-mode-overhead.json)
	check "$name: MemFree falls by $ram MiB" free_ram_falls_by $ram
	is "$name: the memmap, bytes" $(($(awk '$1 == "nr_memmap_pages" {print $2}' /proc/vmstat) * 4096)) "$map"
}

# check_capacity NAME BYTES WANTED
check_capacity() {
	is "$1: capacity, of 3 GiB" "$2" "$3"
}

# is_multiple ADDRESS OF
is_multiple() {
	printf '%s\n' "$1"
	[ $(($1 % $2)) -eq 0 ]
}

# round_up BYTES ALIGN: memory is mapped in units of at least 2 MiB.
round_up() {
	piece=$(($2 > 2 * MIB ? $2 : 2 * MIB))
	echo $((($1 + piece - 1) / piece * piece))
}

# test_fsdax NAME ALIGN
test_fsdax() {
	holder=$(cat "$ND/$namespace/holder")
	check "$1: data begin at a multiple of it" is_multiple "$(cat "$ND/$holder/resource")" "$2"
	make_fs ext4 "$disk"
	mount_dax "$disk"
	fallocate -l 2M $MNT/file
	check "$1: a file is stored to" pmem-io map-write --sync --durable flush $MNT/file
	check "$1: and read" pmem-io verify $MNT/file
	umount $MNT
}

# test_devdax NAME ALIGN: maps, stores to and reads one page of that size; less cannot be mapped.
test_devdax() {
	chardev=/dev/$(jq -r '.daxregion.devices[0].chardev' /tmp/namespace-mode-overhead.json)
	holder=$(cat "$ND/$namespace/holder")
	check "$1: data begin at a multiple of it" is_multiple "$(cat "$ND/$holder/resource")" "$2"
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
# The kernel counts the struct pages of all devices: raw, this one has none.
raw_disk "$(plain_namespace)" >/dev/null
test_cost raw 0 $SHADOW -m raw
check_capacity raw "$(blockdev --getsize64 "/dev/$disk")" $SIZE
test_cost sector 0 $SHADOW -m sector
record "sector: capacity, of 3 GiB" "$(blockdev --getsize64 "/dev/$disk")"
for align in 4096 $((2 * MIB)) $((1024 * MIB)); do
	form="fsdax, map in RAM, $align"
	test_cost "$form" $MAP $MAP -m fsdax -M mem -a $align
	check_capacity "$form" "$(blockdev --getsize64 "/dev/$disk")" $((SIZE - $(round_up 8192 $align)))
	test_fsdax "$form" $align

	form="fsdax, map on the device, $align"
	test_cost "$form" $MAP 0 -m fsdax -M dev -a $align
	check_capacity "$form" "$(blockdev --getsize64 "/dev/$disk")" $((SIZE - $(round_up $((MAP + 8192)) $align)))
	test_fsdax "$form" $align

	# Compound pages share most of their struct pages if these are in RAM.
	case $align in
	4096) shared=$MAP ;;
	2097152) shared=$((MAP / 4)) ;;
	*) shared=$((SIZE * 2 * 4096 / align)) ;;
	esac
	form="devdax, map in RAM, $align"
	test_cost "$form" $shared $shared -m devdax -M mem -a $align
	check_capacity "$form" "$(jq .size /tmp/namespace-mode-overhead.json)" $((SIZE - $(round_up 8192 $align)))
	test_devdax "$form" $align

	form="devdax, map on the device, $align"
	test_cost "$form" $MAP 0 -m devdax -M dev -a $align
	check_capacity "$form" "$(jq .size /tmp/namespace-mode-overhead.json)" $((SIZE - $(round_up $((MAP + 8192)) $align)))
	test_devdax "$form" $align
done

# Without a label: the namespace is all of its region.
align=$((1024 * MIB))
namespace=$(plain_namespace)
for form in "fsdax -M mem" "fsdax -M dev" "devdax -M mem" "devdax -M dev"; do
	# shellcheck disable=SC2086 # words
	make_namespace -e "$namespace" -a "$align" -m $form >/tmp/namespace-mode-overhead.json
	disk=$(jq -r '.blockdev // empty' /tmp/namespace-mode-overhead.json)
	record "no label, $form, $align: capacity, of 2 GiB" "$(jq .size /tmp/namespace-mode-overhead.json)"
	case $form in
	fsdax*) test_fsdax "no label, $form, $align" "$align" ;;
	*) test_devdax "no label, $form, $align" "$align" ;;
	esac
done
