#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A hot-added NVDIMM and virtio-pmem device get their disks without any command, while another disk is in use.
# compare
# vm: hotplug 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider-rows.sh"

cleanup() {
	umount $MNT 2>/dev/null
	rm -f /tmp/provider-hotplug.*
}

# run_load: writes and verifies the first disk until it is stopped; prints a line per round, and errors.
run_load() {
	seed=1
	while [ ! -e /tmp/provider-hotplug.stop ]; do
		pmem-io fill --direct --length 16M --seed $seed "/dev/$1" && pmem-io verify --direct --length 16M --seed $seed "/dev/$1" && echo round
		seed=$((seed + 1))
	done >>/tmp/provider-hotplug.busy 2>&1
}

# count_rounds: the number of rounds so far.
count_rounds() {
	grep -c round /tmp/provider-hotplug.busy || :
}

# another_round: waits until one more round is complete.
another_round() {
	rounds=$(count_rounds)
	wait_for 60 is_another_round
}

is_another_round() {
	[ "$(count_rounds)" -gt "$rounds" ]
}

# wait_for_namespace PROVIDER COUNT: waits until the provider has so many namespaces, and prints the last one.
wait_for_namespace() {
	wait_for 60 are_namespaces "$1" "$2" || return
	settle
	namespaces "$1" | tail -n 1
}

# test_added NAME NAMESPACE: 11 rows.
test_added() {
	disk=$(disk_of "$2")
	record "$1: the disks" "$(cd /sys/block && echo pmem*)"
	record "$1: its disk" "$disk"
	record_bus "$1" "$2"
	is "$1: bound to the driver under test" "$(driver_of "$2")" "$DRIVER"
	check "$1: the other disk serves on" another_round
	check_data "$1" "$disk"
	disk=$(make_fsdax "$2")
	record "$1: fsdax" "$disk"
	make_fs ext4 "$disk"
	record_result "$1: mounted with DAX" try_dax "$disk"
	umount $MNT
}

plan 26
load_driver
first=$(disk_of "$(nfit_ns)")
rm -f /tmp/provider-hotplug.*
run_load "$first" &
worker=$!
check "a disk is in use" another_round
check "an NVDIMM is added" host add nvdimm size=64M
added=$(wait_for_namespace ACPI.NFIT 2)
test_added NVDIMM "$added"
check "a virtio-pmem device is added" host add virtio-pmem size=64M
added=$(wait_for_namespace virtio-pmem 2)
test_added virtio-pmem "$added"
touch /tmp/provider-hotplug.stop
wait $worker
is_empty "nothing went wrong meanwhile" sed '/round/d' /tmp/provider-hotplug.busy
