#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# All modes of a namespace without a label, on an NVDIMM and in e820 memory: what ndctl makes of it, what it is found as again, and what
# needs a label.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	modprobe -r device_dax dax_pmem
}

# told: what ndctl says of it.
told() {
	ndctl list -N -n "$1" | jq -r '.[0] | "\(.mode) map \(.map) \(.size) sector \(.sector_size) align \(.align) \(.blockdev // .chardev // .daxregion.devices[0].chardev)"'
}

# uses NAME NAMESPACE: whatever it is, it takes and gives data.
uses() {
	if disk=$(disk_of "$2"); then
		check "$1: written" pmem-io fill --direct --length 4M "/dev/$disk" --seed 1
		check "$1: read" pmem-io verify --direct --length 4M "/dev/$disk" --seed 1
	else
		dax=$(ndctl list -X -n "$2" | jq -r '.[0].daxregion.devices[0].chardev')
		check "$1: written" pmem-io map-write --length 4M "/dev/$dax" --seed 1
		check "$1: read" pmem-io map-verify --length 4M "/dev/$dax" --seed 1
	fi
}

# info_blocks: how many it has.
info_blocks() {
	# shellcheck disable=SC2016 # for sh
	with_force_raw "$1" sh -c 'head -c 4112 "$1" | tail -c 16 | grep -c NVDIMM_PFN_INFO || :' sh
}

# becomes PROVIDER NAMESPACE MODE OPTION…
becomes() {
	provider=$1 namespace=$2
	shift 2
	make_namespace -e "$namespace" -m "$@" >/dev/null
	record "$provider: $*: told" "$(told "$namespace")"
	uses "$provider: $*" "$namespace"
}

# modes PROVIDER NAMESPACE
modes() {
	becomes "$1" "$2" fsdax -M mem
	becomes "$1" "$2" fsdax -M mem -a 4096
	becomes "$1" "$2" fsdax -M dev
	becomes "$1" "$2" fsdax -M dev -a 4096
	becomes "$1" "$2" devdax -M mem
	becomes "$1" "$2" devdax -M mem -a 4096
	becomes "$1" "$2" devdax -M dev
	becomes "$1" "$2" sector
	becomes "$1" "$2" sector -l 512
	becomes "$1" "$2" sector -l 4104
	told=$(told "$2")
	unload_driver
	reset_regions
	load_driver
	is "$1: found again as what it was" "$(told "$2")" "$told"
	becomes "$1" "$2" raw
	record_result "$1: raw: size" blockdev --getsize64 "/dev/$(disk_of "$2")"
	ndctl create-namespace -f -e "$2" -m fsdax -n name >/dev/null
	record "$1: a name" "$(ndctl list -N -n "$2" | jq -r '.[0] | "\(.mode) \(.name)"')"
	record_result "$1: a smaller size" ndctl create-namespace -f -e "$2" -m fsdax -s 16M
	record_result "$1: another alignment" ndctl create-namespace -f -e "$2" -m fsdax -a 1G
	record_result "$1: another namespace" ndctl create-namespace -r "$(basename "$(readlink -f "$ND/$2/..")")" -m raw
	is "$1: an info block" "$(info_blocks "$2")" 1
	record_result "$1: destroyed" ndctl destroy-namespace -f "$2"
	is "$1: no info block" "$(info_blocks "$2")" 0
	ndctl enable-namespace "$2" >/dev/null 2>&1 || :
	settle
	record "$1: and what is enabled again is raw" "$(told "$2")"
}

plan 86
load_driver
modprobe device_dax
for namespace in $(namespaces ACPI.NFIT); do
	has_labels "$namespace/.." || nfit=$namespace
done
modes NVDIMM "$nfit"
modes e820 "$(e820_ns)"
