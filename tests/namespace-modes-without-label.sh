#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A namespace without a label supports all modes, on an NVDIMM and in e820 memory, and is found again unchanged.
#
# Operations that need a label are refused.
# compare
# kernel: device_dax
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	modprobe -r device_dax dax_pmem
}

# show_namespace NAMESPACE: the attributes that ndctl shows.
show_namespace() {
	ndctl list -N -n "$1" | jq -r '.[0] | "\(.mode) map \(.map) \(.size) sector \(.sector_size) align \(.align) \(.blockdev // .chardev // .daxregion.devices[0].chardev)"'
}

# check_data NAME NAMESPACE: its device keeps data, in any mode.
check_data() {
	if disk=$(disk_of "$2"); then
		check "$1: written" pmem-io fill --direct --length 4M "/dev/$disk" --seed 1
		check "$1: read" pmem-io verify --direct --length 4M "/dev/$disk" --seed 1
	else
		dax=$(ndctl list -X -n "$2" | jq -r '.[0].daxregion.devices[0].chardev')
		check "$1: written" pmem-io map-write --length 4M "/dev/$dax" --seed 1
		check "$1: read" pmem-io map-verify --length 4M "/dev/$dax" --seed 1
	fi
}

# count_info_blocks NAMESPACE
count_info_blocks() {
	# shellcheck disable=SC2016 # for sh
	with_force_raw "$1" sh -c 'head -c 4112 "$1" | tail -c 16 | grep -c NVDIMM_PFN_INFO || :' sh
}

# change_mode PROVIDER NAMESPACE MODE OPTION…
change_mode() {
	provider=$1 namespace=$2
	shift 2
	make_namespace -e "$namespace" -m "$@" >/dev/null
	record "$provider: $*: as ndctl shows it" "$(show_namespace "$namespace")"
	check_data "$provider: $*" "$namespace"
}

# test_modes PROVIDER NAMESPACE
test_modes() {
	change_mode "$1" "$2" fsdax -M mem
	change_mode "$1" "$2" fsdax -M mem -a 4096
	change_mode "$1" "$2" fsdax -M dev
	change_mode "$1" "$2" fsdax -M dev -a 4096
	change_mode "$1" "$2" devdax -M mem
	change_mode "$1" "$2" devdax -M mem -a 4096
	change_mode "$1" "$2" devdax -M dev
	change_mode "$1" "$2" sector
	change_mode "$1" "$2" sector -l 512
	change_mode "$1" "$2" sector -l 4104
	attributes=$(show_namespace "$2")
	unload_driver
	reset_regions
	load_driver
	is "$1: found again as what it was" "$(show_namespace "$2")" "$attributes"
	change_mode "$1" "$2" raw
	record_result "$1: raw: size" blockdev --getsize64 "/dev/$(disk_of "$2")"
	ndctl create-namespace -f -e "$2" -m fsdax -n name >/dev/null
	record "$1: a name" "$(ndctl list -N -n "$2" | jq -r '.[0] | "\(.mode) \(.name)"')"
	record_result "$1: a smaller size" ndctl create-namespace -f -e "$2" -m fsdax -s 16M
	record_result "$1: another alignment" ndctl create-namespace -f -e "$2" -m fsdax -a 1G
	record_result "$1: another namespace" ndctl create-namespace -r "$(region_of_namespace "$2")" -m raw
	is "$1: an info block" "$(count_info_blocks "$2")" 1
	record_result "$1: destroyed" ndctl destroy-namespace -f "$2"
	is "$1: no info block" "$(count_info_blocks "$2")" 0
	ndctl enable-namespace "$2" >/dev/null 2>&1 || :
	settle
	record "$1: and what is enabled again is raw" "$(show_namespace "$2")"
}

plan 86
load_driver
modprobe device_dax
for namespace in $(namespaces ACPI.NFIT); do
	has_labels "$namespace/.." || nfit=$namespace
done
test_modes NVDIMM "$nfit"
test_modes e820 "$(e820_ns)"
