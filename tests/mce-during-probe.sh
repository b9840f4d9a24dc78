#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A load of metadata that fails in a probe, as from poison, gives no disk with other data, and the next probe finds all data.
#
# libnvdimm takes an info block that it can't read for none. If no label names the mode, the disk is a raw one, with a warning. In
# these tests, the copy from the address fails as after a machine check.
# vm: provider-labels
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# disabled: the namespace has no driver.
disabled() {
	ndctl disable-namespace "$namespace" >/dev/null 2>&1
}

# bound_to: the kind of device that has the disk, which are namespace, pfn and btt; or that there is no disk.
bound_to() {
	settle
	if bound_disk=$(disk_of "$namespace"); then
		device_of_disk "$bound_disk" | sed 's/[0-9.]*$//'
	else
		echo "no disk"
	fi
}

# show_failure ADDRESS DEVICE: binds the device while no load from the address succeeds; prints what has the disk then.
show_failure() {
	provider fail "copy_mc_to_kernel 4096 $1"
	bind_error "$2" >/dev/null
	failed_on=$(bound_to)
	[ "$(provider fail)" != 0 ] || failed_on="nothing is loaded from there"
	provider fail ""
	echo "$failed_on"
}

# finds_data: enables the namespace as it is; the data is there.
finds_data() {
	disabled
	ndctl enable-namespace "$namespace" >/dev/null 2>&1 || :
	[ "$(bound_to)" = "$kind" ] && disk=$(disk_of "$namespace") && pmem-io verify --direct --length 1M "/dev/$disk"
}

# btt_address NAME: the address of a part of the arena, which begins at the info block (struct arena_info in drivers/nvdimm/btt.h).
btt_address() {
	echo $((info + $(cat "/sys/kernel/debug/btt/$device/arena0/$1")))
}

# test_mode NAME MODE OPTION OF ndctl…: 5 rows, or 8 in sector mode. Without a label the raw disk has a warning.
test_mode() {
	name="$1, $2" mode=$2 disk_without=namespace
	[ "$1" != "with labels" ] || disk_without="no disk"
	shift 2
	ndctl create-namespace -f -e "$namespace" "$@" >/tmp/made.json
	namespace=$(jq -r .dev /tmp/made.json)
	info=$(($(cat "$ND/$namespace/resource") + 4096))
	kind=$(bound_to) disk=$(disk_of "$namespace")
	pmem-io fill --direct --length 1M "/dev/$disk"
	device=$(device_of_disk "$disk")

	disabled
	dmesg -C
	is "$name: the info block, by the namespace's probe" "$(show_failure $info "$namespace")" "$disk_without"
	is "$name: the log names it" "$(dmesg | grep -c "error at $(printf %#x $info), .* info block")" 1
	check "$name: the next probe finds the data" finds_data
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	is "$name: the info block, by the probe of its device" "$(show_failure $info "$device")" "no disk"
	check "$name: the data is there after that, too" finds_data
	[ "$mode" = sector ] || return 0

	# The log entry of the last write, by the only processor, makes the probe look at the map.
	pmem-io fill --direct --offset 20K --length 4K "/dev/$disk" --seed 2
	device=$(device_of_disk "$disk")
	log=$(btt_address logoff) map=$(btt_address mapoff)
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	is "$name: the log" "$(show_failure "$log" "$device")" "no disk"
	is "$name: the map" "$(show_failure $((map + 20)) "$device")" "no disk"
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/bind"
	check "$name: what was written last is there" pmem-io verify --direct --offset 20K --length 4K "/dev/$(disk_of "$namespace")" --seed 2
}

# test_modes NAME: 18 rows
test_modes() {
	test_mode "$1" "fsdax in RAM" -m fsdax -M mem
	test_mode "$1" "fsdax on the device" -m fsdax -M dev
	test_mode "$1" sector -m sector -l 4096
}

need pmem-io
plan 36
modprobe nfit
provide size=$((64 << 20)) pages=0 dimm=0 commands=0
fresh_labels
namespace=$(make_namespace -r "$(labelled_region)" -m raw -s 64M | jq -r .dev)
test_modes "with labels"
namespace=$NAMESPACE
test_modes "without commands"
