#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Disks, partitions and device nodes of several namespaces of a region have the expected names, in any order of binding.
# kernel: device_dax
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# Removes the region number: buses register at the same time, so the numbers vary.
list_disks() {
	for node in /dev/pmem*; do
		case $node in
		"/dev/pmem$number" | "/dev/pmem$number".* | "/dev/pmem${number}"[sp]*) echo "${node#/dev/}" ;;
		esac
	done | sed "s/pmem$number/pmem/" | sort | tr '\n' ' '
}

# add_namespace ARGUMENTS OF ndctl create-namespace…: makes it in the free space of the region; prints its disk.
add_namespace() {
	make_namespace -r "region$number" "$@" | jq -r .blockdev | sed "s/pmem$number/pmem/"
}

cleanup() {
	fresh_labels
}

plan 17
load_driver
number=$(labelled_region)
number=${number#region}
fresh_labels

is "the first" "$(add_namespace -m raw -s 32M)" pmem
is "the second, fsdax" "$(add_namespace -m fsdax -M mem -s 32M)" pmem.1
is "the third, sector" "$(add_namespace -m sector -s 32M)" pmem.2s
is "the fourth, sector of 512 bytes" "$(add_namespace -m sector -l 512 -s 32M)" pmem.3s
is "the fifth, device DAX: none" "$(add_namespace -m devdax -M dev -s 32M)" null
is "the sixth, with a name of its own" "$(add_namespace -m fsdax -M dev -s 32M -n own)" pmem.5
is "all of them" "$(list_disks)" "pmem pmem.1 pmem.2s pmem.3s pmem.5 "
is "block devices of the dynamic major, for root and disk" "$(stat -c '%F %Hr %a' "/dev/pmem$number.1")" "block special file 259 600"

for disk in "pmem$number" "pmem$number.1" "pmem$number.2s"; do
	echo 'start=4MiB, size=4MiB' | sfdisk -q --label dos "/dev/$disk"
done
is "partitions" "$(list_disks)" "pmem pmem.1 pmem.1p1 pmem.2s pmem.2s1 pmem.3s pmem.5 pmemp1 "

unload_driver
is_empty "none without the driver" list_disks
load_driver
is "again the same" "$(list_disks)" "pmem pmem.1 pmem.1p1 pmem.2s pmem.2s1 pmem.3s pmem.5 pmemp1 "

ndctl disable-namespace "namespace$number.1" >/dev/null 2>&1
is "one less" "$(list_disks)" "pmem pmem.2s pmem.2s1 pmem.3s pmem.5 pmemp1 "
ndctl destroy-namespace -f "namespace$number.0" >/dev/null 2>&1
is "another one destroyed" "$(list_disks)" "pmem.2s pmem.2s1 pmem.3s pmem.5 "
ndctl enable-namespace "namespace$number.1" >/dev/null 2>&1
settle
is "back" "$(list_disks)" "pmem.1 pmem.1p1 pmem.2s pmem.2s1 pmem.3s pmem.5 "
record_result "a new one, named" add_namespace -m raw -s 32M

number=$(e820_ns)
number=${number#namespace}
number=${number%.*}
make_namespace -e "namespace$number.0" -m sector >/dev/null
is "e820, sector" "$(list_disks)" "pmems "
make_namespace -e "namespace$number.0" -m raw >/dev/null
is "e820, raw" "$(list_disks)" "pmem "
