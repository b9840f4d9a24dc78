#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Both drivers write byte-identical metadata for each mode, including a BTT map that both wrote through.
# compare
# kernel: device_dax
# vm: labels
# timeout: 600
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	unload_both_drivers
	modprobe -r device_dax dax_pmem
	rm -f /tmp/namespace-metadata-identical.*
}

# dump_namespace: copies all of the namespace to a file.
dump_namespace() {
	# shellcheck disable=SC2016 # for sh
	with_force_raw "$namespace" sh -c 'cat "$1" >/tmp/namespace-metadata-identical.bytes' sh
}

# checksum OFFSET LENGTH: of this part of the copy.
checksum() {
	dd if=/tmp/namespace-metadata-identical.bytes iflag=skip_bytes,count_bytes bs=64K skip="$1" count="$2" 2>/dev/null | md5sum | cut -d ' ' -f 1
}

# show_numbers OFFSET:BYTES…: numbers of the info block at 4 KiB.
show_numbers() {
	for number in "$@"; do
		od -A n -j $((4096 + ${number%:*})) -N "${number#*:}" -t "u${number#*:}" /tmp/namespace-metadata-identical.bytes
	done | xargs
}

# show_uuid OFFSET: a UUID of the info block, without dashes.
show_uuid() {
	od -A n -j $((4096 + $1)) -N 16 -t x1 /tmp/namespace-metadata-identical.bytes | tr -d ' \n'
}

# show_signature: the signature of the info block.
show_signature() {
	dd if=/tmp/namespace-metadata-identical.bytes bs=16 skip=256 count=1 2>/dev/null | tr -d '\0'
}

# make_mode MODE OPTION…: makes the only namespace, with the same UUID in each run, because info blocks refer to it.
count=10
make_mode() {
	count=$((count + 1))
	UUID=5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a$count
	fresh_labels
	ndctl create-namespace -r "$region" -s 32M -u $UUID -m "$@" >/tmp/namespace-metadata-identical.json
	settle
	namespace=$(jq -r .dev /tmp/namespace-metadata-identical.json)
}

# holder_uuid: the UUID of the device that claims the namespace.
holder_uuid() {
	tr -d '-' <"$ND/$(cat "$ND/$namespace/holder")/uuid"
}

# test_pfn NAME OPTION…: the info block of a pfn or dax device.
test_pfn() {
	name=$1
	shift
	make_mode "$@"
	dump_namespace
	record "$name: signature" "$(show_signature)"
	record "$name: flags, version, data offset, pages" "$(show_numbers 48:4 52:2 54:2 56:8 64:8)"
	record "$name: mode, pad, cut off, alignment, page size and struct page" "$(show_numbers 72:4 76:4 80:4 84:4 88:4 92:2)"
	is "$name: the namespace's uuid" "$(show_uuid 32)" "$(echo $UUID | tr -d -)"
	is "$name: its own uuid" "$(show_uuid 16)" "$(holder_uuid)"
	record "$name: in front of it" "$(checksum 0 4096)"
	sum=$(checksum 0 8192)
	own=$(holder_uuid)
	swap_drivers
	is "$name: the other driver has the same uuid" "$(holder_uuid)" "$own"
	dump_namespace
	is "$name: and has changed nothing" "$(checksum 0 8192)" "$sum"
	swap_drivers
	dump_namespace
	is "$name: and back" "$(holder_uuid) $(checksum 0 8192)" "$own $sum"
}

# btt_checksums: of the map and the log.
btt_checksums() {
	checksum $((4096 + map)) $((log - map))
	checksum $((4096 + log)) $((info2 - log))
}

# write_pattern SEED: on one CPU, so that the same lane of the BTT is used each time.
write_pattern() {
	taskset -c 0 pmem-io fill --direct --block "$data" --offset 1M --length 64K "/dev/$disk" --seed "$1"
}

# test_btt SECTOR DATA: a sector size, of which DATA bytes are data.
test_btt() {
	data=$2
	make_mode sector -l "$1"
	disk=$(jq -r .blockdev /tmp/namespace-metadata-identical.json)
	dump_namespace
	record "sector, $1: signature" "$(show_signature)"
	record "sector, $1: flags, version, sectors outside and inside, lanes, size" "$(show_numbers 48:4 52:2 54:2 56:4 60:4 64:4 68:4 72:4 76:4)"
	record "sector, $1: where the next arena, data, map, log and the second info block are" "$(show_numbers 80:8 88:8 96:8 104:8 112:8)"
	map=$(show_numbers 96:8) log=$(show_numbers 104:8) info2=$(show_numbers 112:8)
	is "sector, $1: its own uuid" "$(show_uuid 16)" "$(holder_uuid)"
	is "sector, $1: the namespace's uuid" "$(show_uuid 32)" "$(echo $UUID | tr -d -)"
	is "sector, $1: the two info blocks are one" "$(checksum 4096 4096)" "$(checksum $((4096 + info2)) 4096)"
	record "sector, $1: a fresh map and a fresh log" "$(btt_checksums)"
	write_pattern 1
	dump_namespace
	record "sector, $1: map and log after writing" "$(btt_checksums)"
	sum=$(md5sum </tmp/namespace-metadata-identical.bytes)
	swap_drivers
	check "sector, $1: the other driver reads it" pmem-io verify --direct --offset 1M --length 64K "/dev/$disk" --seed 1
	dump_namespace
	is "sector, $1: and has changed no byte" "$(md5sum </tmp/namespace-metadata-identical.bytes)" "$sum"
	write_pattern 2
	dump_namespace
	record "sector, $1: map and log after the other has written" "$(btt_checksums)"
	sum=$(md5sum </tmp/namespace-metadata-identical.bytes)
	swap_drivers
	check "sector, $1: and back" pmem-io verify --direct --offset 1M --length 64K "/dev/$disk" --seed 2
	dump_namespace
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
test_pfn "fsdax, map in RAM" fsdax -M mem
test_pfn "fsdax, map on the device" fsdax -M dev -a 4096
test_pfn "devdax, map in RAM" devdax -M mem -a 4096
test_pfn "devdax, map on the device" devdax -M dev
test_btt 512 512
test_btt 4096 4096
test_btt 4160 4096
