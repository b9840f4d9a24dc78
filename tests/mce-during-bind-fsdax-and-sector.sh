#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks while an NVDIMM is bound and unbound in fsdax and sector mode crash nothing, and each is listed.
#
# All are in the data. Other tests have those in the memmap, the info block, and the map of a BTT (mce-in-memmap, mce-in-info-block,
# mce-btt-metadata): after one of these, an NVDIMM without a clear-error command is not bound again. One in the memmap may also
# crash the kernel before memremap_pages() is done, whatever the driver: memory-failure recovery reads struct pages of the memmap
# that nobody has initialised (patches/0009). Struct pages of the data are then what they were at the last bind (on the device), or
# zeroes (in RAM); a kernel for debugging is told not to fill them with a pattern.
# vm: no-debug 2
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

# The first pages are reported to the MCE decode chain, the others as exceptions of the processor.
STRIDE=65536
REPORTED=60
PAGES=80

cleanup() {
	wait
	rm -f /tmp/mce_next /tmp/mce_over /tmp/unlisted
}

# inject_pages
inject_pages() {
	mce_inject_pages "$data" $STRIDE 0 $((REPORTED - 1))
	mce_raise_pages_at_bind "$data" $STRIDE $REPORTED $((PAGES - 1))
}

# are_listed NEXT: the pages before this one are in the region's badblocks, and, in fsdax mode, in the disk's. Prints the others.
are_listed() {
	are_first=$(((data - region_start) / STRIDE)) are_others=
	are_unlisted=$(unlisted_pages "$ND/$region/badblocks" $STRIDE $are_first $((are_first + $1))) || return
	case $device in
	pfn*) are_others=$(unlisted_pages "/sys/block/$disk/badblocks" $STRIDE 0 "$1") || return ;;
	esac
	[ -z "$are_unlisted$are_others" ] || {
		echo "$are_unlisted" "$are_others" | xargs echo pages
		return 1
	}
}

# data_results: reads the first 16 MiB, where all bad pages are; prints how many pages had each result.
data_results() {
	pmem-io places "/dev/$disk" verify --direct --stride 4K --count 4096 2>&1 | sed 's/, first.*//' | sort
}

# test_rebind MODE: 6 rows: binds and unbinds the disk while the machine checks come.
test_rebind() {
	device=$(device_of_disk "$disk")
	namespace=$(cat "$ND/$device/namespace")
	case $device in
	pfn*) data=$(($(cat "$ND/$device/resource"))) ;;
	# Behind the info block of the BTT.
	*) data=$(($(cat "$ND/$namespace/resource") + STRIDE)) ;;
	esac
	pmem-io fill --direct --length 16M "/dev/$disk"
	rm -f /tmp/mce_over
	echo 0 >/tmp/mce_next
	{
		inject_pages
		touch /tmp/mce_over
	} &
	rounds=0 unlisted=
	until [ -e /tmp/mce_over ]; do
		echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
		echo "$device" >"/sys/bus/nd/drivers/$DRIVER/bind"
		rounds=$((rounds + 1))
		disk=$(disk_of "$namespace")
		[ $((rounds % 4)) != 0 ] || sleep 0.2
		wait_for 60 are_listed "$(mce_next)" >/tmp/unlisted || unlisted="$unlisted $(tail -n 1 /tmp/unlisted)"
	done
	wait
	check "$1: they come before and after a bind" test $rounds -ge 2
	check "$1: those that have come are listed after each bind" test -z "$unlisted"
	check "$1: each is listed at the end" wait_for 60 are_listed $PAGES
	rebind "$device"
	disk=$(disk_of "$namespace")
	check "$1: and after one more bind" are_listed $PAGES
	is "$1: these pages can't be read, all others can" "$(data_results)" "Input/output error: $PAGES
ok: $((4096 - PAGES))"
	# Two namespaces with struct pages in the same section: its other part has some before they are initialised.
	check "$1: it is disabled" ndctl disable-namespace "$namespace"
}

plan 18
need pmem-io
load_driver
load_mce_inject
fresh_labels
region=$(labelled_region)
region_start=$(($(cat "$ND/$region/resource")))
# Of less than a section (128 MiB) the memmap is in RAM.
for mode in 'fsdax, memmap on the device' 'fsdax, memmap in RAM' sector; do
	case $mode in
	*device) options='-m fsdax -M dev -s 160M' ;;
	*RAM) options='-m fsdax -M mem -s 64M' ;;
	sector) options='-m sector -l 4096 -s 32M' ;;
	esac
	# shellcheck disable=SC2086 # several words
	disk=$(make_namespace -r "$region" $options | jq -r .blockdev)
	test_rebind "$mode"
done
