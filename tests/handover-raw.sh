#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Memory that one driver writes is byte-identical under the other driver, in both directions, and loading a driver changes no byte.
#
# With both drivers loaded, each keeps its namespaces, and a namespace can be handed over by unbind and bind.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

tmp=/tmp/handover-raw
drivers=/sys/bus/nd/drivers

cleanup() {
	unload_both_drivers
	rm -f $tmp.*
}

# hand_over NAMESPACE FROM TO
hand_over() {
	echo "$1" >"$drivers/$2/unbind" && echo "$1" >"$drivers/$3/bind"
}

# make_devices: one in fsdax mode with its struct pages in RAM, one with them on the device, one in sector mode.
make_devices() {
	pmem-io fill --direct "/dev/$(labelled_disk -m fsdax -M mem -s 32M)"
	make_namespace -r "$(labelled_region)" -m fsdax -M dev -s 32M >$tmp.device
	pmem-io fill --direct "/dev/$(jq -r .blockdev $tmp.device)"
	make_namespace -r "$(labelled_region)" -m sector -s 32M >$tmp.sector
	pmem-io fill --direct --length 8M "/dev/$(jq -r .blockdev $tmp.sector)"
	fsdax=$(jq -r .dev /tmp/labelled_disk.json)
	device=$(jq -r .dev $tmp.device)
	sector=$(jq -r .dev $tmp.sector)
}

raw_checksums() {
	md5sum "/dev/$nfit" "/dev/$e820" | cut -d ' ' -f 1
}

# device_checksums: with their info blocks.
device_checksums() {
	with_force_raw "$fsdax" md5sum
	with_force_raw "$sector" md5sum
	with_force_raw "$device" checksums_around_memmap
}

# checksums_around_memmap DISK: each load rewrites the struct pages, so compare the bytes before and after them. Without pipes, which
# would hide that they can't be read.
checksums_around_memmap() {
	head -c 8192 "$1" >$tmp.head && md5sum <$tmp.head && { dd bs=2M skip=1 count=0 status=none && md5sum; } <"$1"
}

need_both_drivers
plan 26

# ---- both are loaded ----

load_driver
nfit=$(plain_disk)
e820=$(e820_disk)
one=$(device_of_disk "$nfit")
two=$(e820_ns)
other=$(other_driver)
load_both_drivers
is "the second finds nothing to do" "$(driver_of "$one") $(driver_of "$two")" "$DRIVER $DRIVER"
region=$(region_of_namespace "$one")
ndctl disable-region "$region" >/dev/null 2>&1
ndctl enable-region "$region" >/dev/null 2>&1
settle
is "a namespace that is made anew goes to the first" "$(driver_of "$one")" "$DRIVER"
check "it is given one" hand_over "$one" "$DRIVER" "$other"
is "and has it" "$(driver_of "$one") $(driver_of "$two")" "$other $DRIVER"
check "it writes" pmem-io fill --direct --length 4M "/dev/$nfit" --seed 1
check "and so does the first" pmem-io fill --direct --length 4M "/dev/$e820" --seed 2
check "they change places: the one" hand_over "$one" "$other" "$DRIVER"
check "they change places: the other" hand_over "$two" "$DRIVER" "$other"
is "so they have" "$(driver_of "$one") $(driver_of "$two")" "$DRIVER $other"
check "what the one wrote" pmem-io verify --direct --length 4M "/dev/$nfit" --seed 1
check "what the other wrote" pmem-io verify --direct --length 4M "/dev/$e820" --seed 2
check "the first goes" unload_driver
check "the second serves on" pmem-io verify --direct --length 4M "/dev/$e820" --seed 2
check_fails "what the first had is nobody's" test -e "/dev/$nfit"
check "the first comes back" load_driver
is "and takes what is nobody's" "$(driver_of "$one") $(driver_of "$two")" "$DRIVER $other"

# ---- one after the other ----

rmmod "$other"
echo "$two" >"$drivers/$DRIVER/bind"
pmem-io fill --direct "/dev/$nfit" --offset 20M --seed 1
pmem-io fill --length 12M "/dev/$e820" --seed 2
written=$(raw_checksums)

swap_drivers
is "the disks have the same names" "$(plain_disk) $(e820_disk)" "$nfit $e820"
check "read by the other driver: NVDIMM" pmem-io verify --direct "/dev/$nfit" --offset 20M --seed 1
check "read by the other driver: e820" pmem-io verify --length 12M "/dev/$e820" --seed 2
is "all bytes are the same" "$(raw_checksums)" "$written"
pmem-io fill --direct "/dev/$nfit" --offset 15M --length 7000K --seed 3
pmem-io fill "/dev/$e820" --offset 10M --length 10M --seed 3
make_devices
written=$(raw_checksums)
devices=$(device_checksums)
is "all five devices were looked at" "$(printf '%s\n' "$written" "$devices" | wc -l)" 6

swap_drivers
check "and back: NVDIMM" pmem-io verify --direct "/dev/$nfit" --offset 15M --length 7000K --seed 3
check "and back: what was not written" pmem-io verify --direct "/dev/$nfit" --offset 25M
check "and back: e820" pmem-io verify "/dev/$e820" --offset 10M --length 10M --seed 3
is "and back: all bytes are the same" "$(raw_checksums)" "$written"

# This driver has only been loaded and unloaded, and has read.
swap_drivers
is "no byte has changed" "$(
	raw_checksums
	device_checksums
)" "$written
$devices"
