#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# With several providers on two NUMA nodes, each disk has the node of its memory, and all work at the same time.
# compare
# vm: numa 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider-rows.sh"

# check_nodes NAME NAMESPACE NODE: 2 rows.
check_nodes() {
	is "$1: the disk's node" "$(cat "/sys/block/$(disk_of "$2")/device/numa_node")" "$3"
	record "$1: nodes of region and namespace" "$(for file in numa_node target_node; do cat "$ND/$2/../$file" "$ND/$2/$file"; done | xargs)"
}

# all_at_once COMMAND OF pmem-io…: on all disks at the same time, each with its own pattern.
all_at_once() {
	seed=1 running=
	for disk in $disks; do
		pmem-io "$@" "/dev/$disk" --seed $seed &
		running="$running $!"
		seed=$((seed + 1))
	done
	for pid in $running; do
		wait "$pid" || return
	done
}

# page_nodes: the nodes that have struct pages of persistent memory.
page_nodes() {
	awk '$1 == "Node" { node = $2 + 0; device = $4 == "Device" }
		device && $1 == "spanned" && $2 > 0 { print node }' /proc/zoneinfo | xargs
}

plan 19
load_driver
is "e820: the struct pages are on the node of their memory" "$(page_nodes)" "0 1"
record "the machine's nodes" "$(cat /sys/devices/system/node/online)"
check_nodes "NVDIMM" "$(nfit_ns)" 0
check_nodes "NVDIMM of node 1" "$(namespaces ACPI.NFIT | sed -n 2p)" 1
check_nodes "e820" "$(e820_ns)" 0
check_nodes "e820 of node 1" "$(namespaces e820 | sed -n 2p)" 1
check_nodes "virtio-pmem" "$(virtio_ns)" 0
disks=$(cd /sys/block && echo pmem*)
record "the disks" "$disks"
check "all at once: written" all_at_once fill --direct
check "all at once: read" all_at_once verify --direct
for namespace in $(namespaces ACPI.NFIT) $(namespaces e820) $(virtio_ns); do
	make_fsdax "$namespace" >/dev/null
done
record "fsdax: the disks" "$(cd /sys/block && echo pmem*)"
record "fsdax: their nodes" "$(for disk in $disks; do cat "/sys/block/$disk/device/numa_node"; done | xargs)"
check "fsdax, all at once: written" all_at_once fill --direct
check "fsdax, all at once: read" all_at_once verify --direct
