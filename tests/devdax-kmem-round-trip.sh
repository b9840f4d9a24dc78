#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Device DAX becomes system RAM on its own NUMA node and device DAX again, beside a mounted namespace of the region.
# compare
# kernel: device_dax kmem
# vm: kmem 2
. "$(dirname "$0")/lib/test.sh"

SHM_FILE=/dev/shm/devdax-kmem-round-trip

cleanup() {
	rm -f $SHM_FILE
	umount $MNT 2>/dev/null
	daxctl offline-memory "$dax" >/dev/null 2>&1
	daxctl reconfigure-device -f -m devdax "$dax" >/dev/null 2>&1
	ndctl disable-region all >/dev/null 2>&1
	modprobe -r kmem device_dax dax_pmem
}

# total_ram: the machine's RAM in KiB.
total_ram() {
	awk '/^MemTotal:/ {print $2}' /proc/meminfo
}

# daxctl_state ARGUMENTS OF daxctl…: the state that daxctl prints.
daxctl_state() {
	daxctl "$@" 2>/dev/null | jq -r '.[0] | "\(.mode) \(.target_node) \(.online_memblocks) of \(.total_memblocks)"'
}

# fill_node NODE: a program bound to this node allocates 100 MiB; prints how much of that is on node 1.
fill_node() {
	numactl --membind="$1" dd if=/dev/zero of=$SHM_FILE bs=1M count=100 2>/dev/null
	awk '/ Shmem:/ {print int($4 / 1024 + 0.5)}' /sys/devices/system/node/node1/meminfo
	rm $SHM_FILE
}

# check_namespace NAME SEED: the namespace beside the device works.
check_namespace() {
	check "$1: the namespace beside it, a file of it" pmem-io map-write --sync --durable flush $MNT/file --seed "$2"
	check "$1: and read" pmem-io verify --direct $MNT/file --seed "$2"
}

need numactl daxctl
plan 28
load_driver
modprobe -a device_dax kmem
disk=$(labelled_disk -m fsdax -M mem -s 64M)
dax=$(make_namespace -r "$(labelled_region)" -m devdax -M mem -s 448M | jq -r '.daxregion.devices[0].chardev')
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 8M $MNT/file
is "the nodes that have memory" "$(cat /sys/devices/system/node/has_memory)" 0
is "the namespace's node is the nearest of them" "$(cat "/sys/block/$disk/device/numa_node")" 0
pmem-io map-write --length 4M "/dev/$dax"
before=$(total_ram)
is "system RAM: what daxctl says" "$(daxctl_state reconfigure-device -m system-ram "$dax")" "system-ram 1 3 of 3"
block=$((0x$(cat /sys/devices/system/memory/block_size_bytes) / 1024))
record "a block of memory, KiB" $block
is "MemTotal has grown by three blocks" $(($(total_ram) - before)) $((3 * block))
is "the nodes that have memory now" "$(cat /sys/devices/system/node/has_memory)" 0-1
is_empty "a node of its own, without a processor" cat /sys/devices/system/node/node1/cpulist
record "its distance" "$(cat /sys/devices/system/node/node1/distance)"
record "in the map of memory" "$(sed -n "/$dax/,\$p" /proc/iomem | head -n 2 | sed 's/^ *//')"
check_namespace "system RAM" 1
is "bound to the new node, a program's memory is there" "$(fill_node 1)" 100
is "bound to the old one, it is not" "$(fill_node 0)" 0
record_result "the namespace can't be taken away" ndctl disable-namespace "$(ndctl list -X | jq -r '.[] | select(.mode == "devdax").dev')"
umount $MNT
unload_driver
is "without the driver the memory stays" $(($(total_ram) - before)) $((3 * block))
is "and can be used" "$(fill_node 1)" 100
load_driver
is "the driver finds its namespace and no other" "$(cd /dev && echo pmem*)" "$disk"
mount_dax "$disk"
check_namespace "with the driver again" 2
is "offline: what daxctl says" "$(daxctl_state offline-memory "$dax" >/dev/null && daxctl_state list -d "$dax")" "system-ram 1 0 of 3"
is "MemTotal is what it was" "$(total_ram)" "$before"
is "device DAX: what daxctl says" "$(daxctl_state reconfigure-device -f -m devdax "$dax")" "devdax 1 null of null"
is "the nodes that have memory at last" "$(cat /sys/devices/system/node/has_memory)" 0
check "its memory is written" pmem-io map-write --length 8M "/dev/$dax" --seed 3
check "and read" pmem-io map-verify --length 8M "/dev/$dax" --seed 3
check_namespace "device DAX again" 4
umount $MNT
check "it is taken away" ndctl destroy-namespace -f "$(ndctl list -X | jq -r '.[] | select(.mode == "devdax").dev')"
