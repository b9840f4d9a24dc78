#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The metadata that each mode puts on a namespace, as they are seen when all of it is looked at: those of one driver are the other's, byte
# for byte, also of a translation table that both wrote through.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# timeout: 180
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	unload_both_drivers
	modprobe -r device_dax dax_pmem
	rm -f /tmp/namespace-metadata-identical.*
}

# looks: all of the namespace, as it is now.
looks() {
	# shellcheck disable=SC2016 # for sh
	with_force_raw "$namespace" sh -c 'cat "$1" >/tmp/namespace-metadata-identical.bytes' sh
}

# piece OFFSET LENGTH: what was seen there, its sum.
piece() {
	dd if=/tmp/namespace-metadata-identical.bytes iflag=skip_bytes,count_bytes bs=64K skip="$1" count="$2" 2>/dev/null | md5sum | cut -d ' ' -f 1
}

# numbers OFFSET:BYTES…: of the info block at 4 KiB.
numbers() {
	for number in "$@"; do
		od -A n -j $((4096 + ${number%:*})) -N "${number#*:}" -t "u${number#*:}" /tmp/namespace-metadata-identical.bytes
	done | xargs
}

# uuid OFFSET: of the info block, without dashes.
uuid() {
	od -A n -j $((4096 + $1)) -N 16 -t x1 /tmp/namespace-metadata-identical.bytes | tr -d ' \n'
}

# signature: of the info block.
signature() {
	dd if=/tmp/namespace-metadata-identical.bytes bs=16 skip=256 count=1 2>/dev/null | tr -d '\0'
}

# made MODE OPTION…: the only namespace, with a uuid that is the same at each run: by it an info block knows its namespace.
count=10
made() {
	count=$((count + 1))
	UUID=5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a$count
	fresh_labels
	ndctl create-namespace -r "$region" -s 32M -u $UUID -m "$@" >/tmp/namespace-metadata-identical.json
	settle
	namespace=$(jq -r .dev /tmp/namespace-metadata-identical.json)
}

# claimed: the uuid of what holds the namespace.
claimed() {
	tr -d '-' <"$ND/$(cat "$ND/$namespace/holder")/uuid"
}

# info_block NAME FORM…: of a page map.
info_block() {
	name=$1
	shift
	made "$@"
	looks
	record "$name: signature" "$(signature)"
	record "$name: flags, version, data offset, pages" "$(numbers 48:4 52:2 54:2 56:8 64:8)"
	record "$name: mode, pad, cut off, alignment, page size and struct page" "$(numbers 72:4 76:4 80:4 84:4 88:4 92:2)"
	is "$name: the namespace's uuid" "$(uuid 32)" "$(echo $UUID | tr -d -)"
	is "$name: its own uuid" "$(uuid 16)" "$(claimed)"
	record "$name: in front of it" "$(piece 0 4096)"
	sum=$(piece 0 8192)
	own=$(claimed)
	swap_drivers
	is "$name: the other driver has the same uuid" "$(claimed)" "$own"
	looks
	is "$name: and has changed nothing" "$(piece 0 8192)" "$sum"
	swap_drivers
	looks
	is "$name: and back" "$(claimed) $(piece 0 8192)" "$own $sum"
}

# table: the sums of the map and the log.
table() {
	piece $((4096 + map)) $((log - map))
	piece $((4096 + log)) $((info2 - log))
}

# writes SEED: by one processor, so that the same lane of the table is used each time.
writes() {
	taskset -c 0 pmem-io fill --direct --block "$data" --offset 1M --length 64K "/dev/$disk" --seed "$1"
}

# btt SECTOR DATA: so many bytes, so many of them data.
btt() {
	data=$2
	made sector -l "$1"
	disk=$(jq -r .blockdev /tmp/namespace-metadata-identical.json)
	looks
	record "sector, $1: signature" "$(signature)"
	record "sector, $1: flags, version, sectors outside and inside, lanes, size" "$(numbers 48:4 52:2 54:2 56:4 60:4 64:4 68:4 72:4 76:4)"
	record "sector, $1: where the next arena, data, map, log and the second info block are" "$(numbers 80:8 88:8 96:8 104:8 112:8)"
	map=$(numbers 96:8) log=$(numbers 104:8) info2=$(numbers 112:8)
	is "sector, $1: its own uuid" "$(uuid 16)" "$(claimed)"
	is "sector, $1: the namespace's uuid" "$(uuid 32)" "$(echo $UUID | tr -d -)"
	is "sector, $1: the two info blocks are one" "$(piece 4096 4096)" "$(piece $((4096 + info2)) 4096)"
	record "sector, $1: a fresh map and a fresh log" "$(table)"
	writes 1
	looks
	record "sector, $1: map and log after writing" "$(table)"
	sum=$(md5sum </tmp/namespace-metadata-identical.bytes)
	swap_drivers
	check "sector, $1: the other driver reads it" pmem-io verify --direct --offset 1M --length 64K "/dev/$disk" --seed 1
	looks
	is "sector, $1: and has changed no byte" "$(md5sum </tmp/namespace-metadata-identical.bytes)" "$sum"
	writes 2
	looks
	record "sector, $1: map and log after the other has written" "$(table)"
	sum=$(md5sum </tmp/namespace-metadata-identical.bytes)
	swap_drivers
	check "sector, $1: and back" pmem-io verify --direct --offset 1M --length 64K "/dev/$disk" --seed 2
	looks
	is "sector, $1: no byte is changed" "$(md5sum </tmp/namespace-metadata-identical.bytes)" "$sum"
	ndctl disable-namespace "$namespace" >/dev/null 2>&1
	record_result "sector, $1: ndctl's check" ndctl check-namespace "$namespace"
	ndctl enable-namespace "$namespace" >/dev/null 2>&1
	settle
}

need_both_drivers
plan 78
load_driver
modprobe device_dax
region=$(labelled_region)
info_block "fsdax, map in RAM" fsdax -M mem
info_block "fsdax, map on the device" fsdax -M dev -a 4096
info_block "devdax, map in RAM" devdax -M mem -a 4096
info_block "devdax, map on the device" devdax -M dev
btt 512 512
btt 4096 4096
btt 4160 4096
