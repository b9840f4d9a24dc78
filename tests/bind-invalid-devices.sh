#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What a driver is asked to bind or unbind that it can't: seeds without memory, namespaces that another personality has, what is
# bound already, a copy of another's info block, and what is no device.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# quick
. "$(dirname "$0")/lib/test.sh"

DRIVERS=/sys/bus/nd/drivers

# does NAME bind|unbind TEXT: the answer of the driver's file.
does() {
	record "$1" "$(env printf '%s' "$3" 2>&1 >"$DRIVERS/$DRIVER/$2" | sed 's/.*write error: //' | grep . || echo taken)"
}

# seed KIND REGION: the device of which ndctl makes the next.
seed() {
	cat "$ND/$2/$1_seed"
}

# owner NAMESPACE: who has it.
owner() {
	if [ -n "$(driver_of "$1")" ]; then
		echo "namespace"
	else
		sed 's/[0-9].*//' "$ND/$1/holder"
	fi
}

plan 36
load_driver
fresh_labels
region=$(labelled_region)
for mode in fsdax sector devdax raw; do
	ndctl create-namespace -r "$region" -s 32M -m "$mode" >/tmp/$mode.json
done
settle
fsdax=$(jq -r .dev /tmp/fsdax.json) sector=$(jq -r .dev /tmp/sector.json)
devdax=$(jq -r .dev /tmp/devdax.json) raw=$(jq -r .dev /tmp/raw.json)
pfn=$(cat "$ND/$fsdax/holder") btt=$(cat "$ND/$sector/holder") dax=$(cat "$ND/$devdax/holder")

for kind in namespace pfn btt dax; do
	does "a seed: $kind" bind "$(seed $kind "$region")"
done
does "bound already: raw" bind "$raw"
does "bound already: pfn" bind "$pfn"
does "bound already: btt" bind "$btt"
does "claimed: the namespace of a pfn" bind "$fsdax"
does "claimed: the namespace of a btt" bind "$sector"
does "claimed: the namespace of device DAX" bind "$devdax"
does "device DAX itself" bind "$dax"
does "not its own: device DAX" unbind "$dax"
does "not its own: a region" unbind "$region"
does "a region" bind "$region"
does "the bus" bind ndbus0
does "an NVDIMM" bind nmem0
does "no device" bind namespace99.0
does "nothing" bind ""
does "garbage" bind ../../../vda
does "a long name" bind "$(yes namespace | head -n 100 | tr -d '\n')"
does "unbind: no device" unbind namespace99.0
does "unbind: nothing" unbind ""
does "unbind: pfn" unbind "$pfn"
does "unbind: pfn, again" unbind "$pfn"
does "an unbound pfn's namespace" bind "$fsdax"
does "and the pfn again" bind "$pfn"
does "unbind: btt" unbind "$btt"
does "an unbound btt's namespace" bind "$sector"
does "and the btt again" bind "$btt"
is "who has what in the end" "$(for namespace in $fsdax $sector $devdax $raw; do owner "$namespace"; done | tr '\n' ' ')" \
	"pfn btt dax namespace "
check "they serve: pfn" pmem-io fill --direct --length 1M "/dev/$(disk_of "$fsdax")"
check "they serve: btt" pmem-io fill --direct --length 1M "/dev/$(disk_of "$sector")"

# The info block of a page map is copied into a raw namespace: it names the namespace that it is for, and does not count here.
# shellcheck disable=SC2016 # for sh
with_force_raw "$fsdax" sh -c 'dd if="$1" of=/tmp/pfn.block bs=4K skip=1 count=1 status=none' sh
dd if=/tmp/pfn.block of="/dev/$(disk_of "$raw")" bs=4K seek=1 oflag=direct conv=notrunc status=none
does "unbind: raw" unbind "$raw"
does "raw, with another's info block" bind "$raw"
record "who has it" "$(owner "$raw")"
rm -f /tmp/pfn.block
record "files of the driver" "$(find "$DRIVERS/$DRIVER/" -mindepth 1 ! -name '*.*' -printf '%f\n' | sort | tr '\n' ' ')"
