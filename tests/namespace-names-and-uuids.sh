#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Names, UUIDs and sizes of the namespaces of a region are as requested, invalid ones are refused, names are reused.
# compare
# kernel: device_dax
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	ndctl disable-region all >/dev/null 2>&1
	modprobe -r device_dax dax_pmem
}

# list_all: each namespace of the region with its name, mode and node.
list_all() {
	ndctl list -N -r "$region" | jq -r 'if type == "array" then . else [.] end | sort_by(.dev)[] | "\(.dev) \(.name) \(.mode) \(.blockdev // .chardev)"'
}

# make_one ARGUMENTS OF ndctl create-namespace…: makes a namespace; prints it on one line.
make_one() {
	ndctl create-namespace -r "$region" "$@" >/tmp/namespace-names-and-uuids.json || return
	settle
	jq -r '"\(.dev) \(.name) \(.mode) \(.size) \(.blockdev)"' /tmp/namespace-names-and-uuids.json
}

# drop_last: destroys the namespace that was made last.
drop_last() {
	made=$(jq -r .dev /tmp/namespace-names-and-uuids.json)
	[ -z "$made" ] || ndctl destroy-namespace -f "$made" >/dev/null 2>&1
}

# name_of, uuid_of NAMESPACE
name_of() {
	cat "$ND/$1/alt_name"
}
uuid_of() {
	cat "$ND/$1/uuid"
}

UUID=5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a1

plan 45
load_driver
modprobe device_dax
region=$(labelled_region)
fresh_labels
one=namespace${region#region}.0
two=namespace${region#region}.1
record_result "raw, with a name" make_one -m raw -s 32M -n one -u ${UUID}1
record_result "fsdax, with a name" make_one -m fsdax -M mem -s 32M -n "number two" -u ${UUID}2
record_result "sector" make_one -m sector -s 32M -l 4096
record_result "devdax" make_one -m devdax -s 32M
record_result "raw again, sectors of 4096" make_one -m raw -s 32M -l 4096
record "all of them" "$(list_all)"
record "their nodes" "$(cd /dev && echo pmem"${region#region}"* dax*)"
is "the name that was given" "$(name_of "$one") and $(name_of "$two")" "one and number two"
is "the uuid that was given" "$(uuid_of "$one")" ${UUID}1
record_result "a uuid that another has" make_one -m raw -s 32M -u ${UUID}1
record_result "a uuid that is none" make_one -m raw -s 32M -u 5f0c7b1e
record_result "a name that another has" make_one -m raw -s 32M -n one
drop_last
record_result "a name of 63 letters" make_one -m raw -s 16M -n "$(printf '%063d' 7)"
drop_last
record_result "a name of 64 letters" make_one -m raw -s 16M -n "$(printf '%064d' 7)"
drop_last
record_result "17 MiB" make_one -m fsdax -s 17M
record_result "1 MiB" make_one -m raw -s 1M
record_result "16 MiB" make_one -m fsdax -M mem -s 16M
drop_last
record_result "more than there is" make_one -m raw -s 4G
record "all of them, still" "$(list_all)"

pmem-io fill --direct --length 4M "/dev/$(disk_of "$one")" --seed 1
pmem-io fill --direct --length 4M "/dev/$(disk_of "$two")" --seed 2
# write_attribute NAMESPACE ATTRIBUTE VALUE: in the current state; prints the error.
write_attribute() {
	echo "$3" | tee "$ND/$1/$2" 2>&1 >/dev/null | sed 's/.*: //'
}
record_result "another name while it is served" write_attribute "$one" alt_name other
record_result "another uuid while it is served" write_attribute "$one" uuid ${UUID}8
record_result "another size while it is served" write_attribute "$one" size $((16 << 20))
record_result "another sector size while it is served" write_attribute "$one" sector_size 4096
record_result "raw by force while it is served" write_attribute "$one" force_raw 1
echo 0 >"$ND/$one/force_raw"
record_result "another holder class while it is served" write_attribute "$one" holder_class btt
is "the name is what it was" "$(name_of "$one")" one
ndctl disable-namespace "$one" >/dev/null 2>&1
record_result "another name while nobody has it" write_attribute "$one" alt_name other
record_result "another uuid while nobody has it" write_attribute "$one" uuid ${UUID}8
ndctl enable-namespace "$one" >/dev/null 2>&1
settle
is "the other name" "$(name_of "$one")" other
check "its data" pmem-io verify --direct --length 4M "/dev/$(disk_of "$one")" --seed 1
record_result "made anew with a name" sh -c "ndctl create-namespace -f -e $two -m fsdax -M mem -n third | jq -r '\"\\(.dev) \\(.name) \\(.size) \\(.blockdev)\"'"
settle
check "its data, where the data were" pmem-io verify --direct --length 4M "/dev/$(disk_of "$two")" --seed 2

unload_driver
reset_regions
load_driver
record "found again: all of them" "$(list_all)"
record "found again: their nodes" "$(cd /dev && echo pmem"${region#region}"* dax*)"
is "found again: the name" "$(name_of "$one")" other
is "found again: the uuid" "$(uuid_of "$one")" ${UUID}8
check "found again: data" pmem-io verify --direct --length 4M "/dev/$(disk_of "$one")" --seed 1
check "the second is destroyed" ndctl destroy-namespace -f "$two"
record "without it: their nodes" "$(cd /dev && echo pmem"${region#region}"* dax*)"
record_result "one in its place" make_one -m fsdax -M dev -s 32M
record "with it: their nodes" "$(cd /dev && echo pmem"${region#region}"* dax*)"
check "the first has its data" pmem-io verify --direct --length 4M "/dev/$(disk_of "$one")" --seed 1
unload_driver
reset_regions
load_driver
record "found again with it: their nodes" "$(cd /dev && echo pmem"${region#region}"* dax*)"
record_result "all are destroyed" ndctl destroy-namespace -f all -r "$region"
is "no nodes" "$(cd /dev && echo pmem"${region#region}"* dax*)" "pmem${region#region}* dax*"
