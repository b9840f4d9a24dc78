#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Bind and unbind of devices that the driver cannot take fail with the recorded errors.
#
# Seeds without memory, namespaces in another mode, bound devices, a copied info block, missing devices.
# kernel: device_dax
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"

DRIVERS=/sys/bus/nd/drivers

# record_write NAME bind|unbind TEXT: the result of writing to the file of the driver.
record_write() {
	record "$1" "$(env printf '%s' "$3" 2>&1 >"$DRIVERS/$DRIVER/$2" | sed 's/.*write error: //' | grep . || echo taken)"
}

# seed_of KIND REGION: the device from which ndctl makes the next namespace.
seed_of() {
	cat "$ND/$2/$1_seed"
}

# claim_of NAMESPACE: the kind of device that holds it.
claim_of() {
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
	record_write "a seed: $kind" bind "$(seed_of $kind "$region")"
done
record_write "bound already: raw" bind "$raw"
record_write "bound already: pfn" bind "$pfn"
record_write "bound already: btt" bind "$btt"
record_write "claimed: the namespace of a pfn" bind "$fsdax"
record_write "claimed: the namespace of a btt" bind "$sector"
record_write "claimed: the namespace of device DAX" bind "$devdax"
record_write "device DAX itself" bind "$dax"
record_write "not its own: device DAX" unbind "$dax"
record_write "not its own: a region" unbind "$region"
record_write "a region" bind "$region"
record_write "the bus" bind ndbus0
record_write "an NVDIMM" bind nmem0
record_write "no device" bind namespace99.0
record_write "nothing" bind ""
record_write "garbage" bind ../../../vda
record_write "a long name" bind "$(yes namespace | head -n 100 | tr -d '\n')"
record_write "unbind: no device" unbind namespace99.0
record_write "unbind: nothing" unbind ""
record_write "unbind: pfn" unbind "$pfn"
record_write "unbind: pfn, again" unbind "$pfn"
record_write "an unbound pfn's namespace" bind "$fsdax"
record_write "and the pfn again" bind "$pfn"
record_write "unbind: btt" unbind "$btt"
record_write "an unbound btt's namespace" bind "$sector"
record_write "and the btt again" bind "$btt"
is "who has what in the end" "$(for namespace in $fsdax $sector $devdax $raw; do claim_of "$namespace"; done | tr '\n' ' ')" \
	"pfn btt dax namespace "
check "they serve: pfn" pmem-io fill --direct --length 1M "/dev/$(disk_of "$fsdax")"
check "they serve: btt" pmem-io fill --direct --length 1M "/dev/$(disk_of "$sector")"

# Copies the info block of a pfn into a raw namespace. The block names its own namespace, so it is not valid there.
# shellcheck disable=SC2016 # for sh
with_force_raw "$fsdax" sh -c 'dd if="$1" of=/tmp/pfn.block bs=4K skip=1 count=1 status=none' sh
dd if=/tmp/pfn.block of="/dev/$(disk_of "$raw")" bs=4K seek=1 oflag=direct conv=notrunc status=none
record_write "unbind: raw" unbind "$raw"
record_write "raw, with another's info block" bind "$raw"
record "who has it" "$(claim_of "$raw")"
rm -f /tmp/pfn.block
record "files of the driver" "$(find "$DRIVERS/$DRIVER/" -mindepth 1 ! -name '*.*' -printf '%f\n' | sort | tr '\n' ' ')"
