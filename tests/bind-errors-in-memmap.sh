#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Where the bus can't clear errors, a namespace with one where its struct pages would be is not bound until that is repaired.
#
# libnvdimm clears such errors until the region's list has none; on such a bus it would never end, with any driver. For a
# namespace behind another one, it looks at the list in the wrong place.
# kernel: device_dax
# quick
# vm: files
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

cleanup() {
	for disk in /sys/block/pmem*; do
		forget_errors "${disk##*/}"
	done
	unload_driver
}

# errors: the exact list of the namespace, without origins.
errors() {
	cut -d ' ' -f 1,2 "$(errors_list_of "$namespace")"
}

# make_mode MODE…: makes the namespace anew, or says that it fails.
make_mode() {
	timeout 60 ndctl create-namespace -f -e "$namespace" -m "$@" >/dev/null 2>/tmp/error || echo fails
	settle
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no list of errors there"
need pmem-io
plan 31
load_driver
namespace=$(e820_ns)
raw_disk "$namespace" >/dev/null
size=$(cat "$ND/$namespace/size")
region=$ND/$namespace/..
echo "add 1048576 4096" >"$(errors_list_of "$namespace")"
settle
becomes "the region shows it" "2048 8" cat "$region/badblocks"
dmesg -C
is "struct pages on the device: it fails" "$(make_mode fsdax -M dev)" fails
is "the log says where the error is" "$(dmesg | grep -c 'error at 0x20100000, in the memory for struct pages')" 1
is_empty "in RAM: it is bound" make_mode fsdax -M mem
is "the error is listed" "$(errors)" "1048576 4096"
becomes "the region shows it again" "2048 8" cat "$region/badblocks"
is_empty "device DAX, by its own driver: it is bound" make_mode devdax -M dev
is_empty "back to a raw disk" make_mode raw
is "the error is listed there" "$(errors)" "1048576 4096"
disk=$(disk_of "$namespace")
check "a write repairs it" pmem-io fill --direct --offset 1M --length 4K "/dev/$disk"
is_empty "struct pages on the device: it is bound" make_mode fsdax -M dev
becomes "nothing is listed" '' cat "$(errors_list_of "$namespace")" "$region/badblocks"

echo "add 1048576 4096" >"$(errors_list_of "$namespace")"
settle
unload_driver
# Its driver fills its list from the bus's.
reset_regions
namespace=$(e820_ns)
region=$ND/$namespace/..
is "the driver of the region lists it" "$(cat "$region/badblocks")" "2048 8"
load_driver
check_fails "an error in the struct pages of a namespace: it is not bound" disk_of "$namespace"
is_empty "back to a raw disk: it is" make_mode raw
disk=$(disk_of "$namespace")
check "a write repairs that, too" pmem-io fill --direct --offset 1M --length 4K "/dev/$disk"

echo "add 0 $size" >"$(errors_list_of "$namespace")"
settle
check "all of it bad: the region's list has what fits in a page" wait_for 60 fills_page "$region/badblocks"
echo "drop 0 $size" >"$(errors_list_of "$namespace")"
settle
becomes "all of it good" '' cat "$(errors_list_of "$namespace")" "$region/badblocks"

# ---- on an NVDIMM, whose bus has commands, but none to clear errors ----

region=$(labelled_region)
fresh_labels
for which in first second; do
	make_namespace -r "$region" -s 32M -m raw >/tmp/$which.json
done
for which in first second; do
	namespace=$(jq -r .dev /tmp/$which.json)
	echo "add 1048576 4096" >"$(errors_list_of "$namespace")"
	settle
	dmesg -C
	is "$which on an NVDIMM: it is not bound" "$(make_mode fsdax -M dev)" fails
	is "$which: the log says why" "$(dmesg | grep -c 'in the memory for struct pages')" 1
	is_empty "$which, in RAM: it is bound" make_mode fsdax -M mem
	is "$which: the error is listed" "$(errors)" "1048576 4096"
	is_empty "$which: back to a raw disk" make_mode raw
	echo "drop 1048576 4096" >"$(errors_list_of "$namespace")"
done

# libnvdimm would write in front of the second one.
region=$(labelled_region)
echo "add 1048576 4096" >"$(errors_list_of "$(jq -r .dev /tmp/first.json)")"
settle
is_empty "an error in the first: the second is bound" make_mode fsdax -M dev
is_empty "an error in the first: the second has none" errors
becomes "an error in the first: the region has it" "2048 8" cat "$ND/$region/badblocks"
