#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The names of disks, their partitions and their nodes: several namespaces on a region, in whatever order they are bound.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# The numbers of regions are given in the order in which the buses were found, at the same time.
disks() {
	for node in /dev/pmem*; do
		case $node in
		"/dev/pmem$number" | "/dev/pmem$number".* | "/dev/pmem${number}"[sp]*) echo "${node#/dev/}" ;;
		esac
	done | sed "s/pmem$number/pmem/" | sort | tr '\n' ' '
}

# add ARGUMENTS OF ndctl create-namespace…: in what is left of the region; prints its disk.
add() {
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

is "the first" "$(add -m raw -s 32M)" pmem
is "the second, fsdax" "$(add -m fsdax -M mem -s 32M)" pmem.1
is "the third, sector" "$(add -m sector -s 32M)" pmem.2s
is "the fourth, sector of 512 bytes" "$(add -m sector -l 512 -s 32M)" pmem.3s
is "the fifth, device DAX: none" "$(add -m devdax -M dev -s 32M)" null
is "the sixth, with a name of its own" "$(add -m fsdax -M dev -s 32M -n own)" pmem.5
is "all of them" "$(disks)" "pmem pmem.1 pmem.2s pmem.3s pmem.5 "
is "block devices of the dynamic major, for root and disk" "$(stat -c '%F %Hr %a' "/dev/pmem$number.1")" "block special file 259 600"

for disk in "pmem$number" "pmem$number.1" "pmem$number.2s"; do
	echo 'start=4MiB, size=4MiB' | sfdisk -q --label dos "/dev/$disk"
done
is "partitions" "$(disks)" "pmem pmem.1 pmem.1p1 pmem.2s pmem.2s1 pmem.3s pmem.5 pmemp1 "

unload_driver
is "none without the driver" "$(disks)" ""
load_driver
is "again the same" "$(disks)" "pmem pmem.1 pmem.1p1 pmem.2s pmem.2s1 pmem.3s pmem.5 pmemp1 "

ndctl disable-namespace "namespace$number.1" >/dev/null 2>&1
is "one less" "$(disks)" "pmem pmem.2s pmem.2s1 pmem.3s pmem.5 pmemp1 "
ndctl destroy-namespace -f "namespace$number.0" >/dev/null 2>&1
is "another one destroyed" "$(disks)" "pmem.2s pmem.2s1 pmem.3s pmem.5 "
ndctl enable-namespace "namespace$number.1" >/dev/null 2>&1
settle
is "back" "$(disks)" "pmem.1 pmem.1p1 pmem.2s pmem.2s1 pmem.3s pmem.5 "
record_result "a new one, named" add -m raw -s 32M

number=$(e820_ns)
number=${number#namespace}
number=${number%.*}
make_namespace -e "namespace$number.0" -m sector >/dev/null
is "e820, sector" "$(disks)" "pmems "
make_namespace -e "namespace$number.0" -m raw >/dev/null
is "e820, raw" "$(disks)" "pmem "
