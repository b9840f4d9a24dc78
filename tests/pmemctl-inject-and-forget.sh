#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl errors inject and forget count from the start of the given device: a disk, a partition or a namespace.
# vm: three
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"

# list_badblocks: those of the disk.
list_badblocks() {
	cat "/sys/block/$disk/badblocks"
}

[ "$DRIVER" = rust_pmem ] || skip_all "C can't inject"
need sfdisk wipefs

cleanup() {
	pmemctl errors forget "$nfit" 0 32M
	wipefs -aq "/dev/$disk"
	make_namespace -e "$nfit" -m raw
	unload_driver
	rm -rf /tmp/state
}

plan 33
load_driver_anew
nfit=$(nfit_ns)
disk=$(make_fsdax "$nfit")
device=$(device_of_disk "$disk")
data=$(($(cat "$ND/$device/resource") - $(cat "$ND/$nfit/resource")))
check_fails "without inject=1" pmemctl errors inject "$disk" 1M 4K
check "is said so" sh -c "pmemctl errors inject $disk 1M 4K 2>&1 | grep -q 'inject=1'"
unload_driver
insmod "$MODULE" inject=1
settle
disk=$(disk_of "$nfit")
pmem-io fill --direct --offset 1M --length 8K "/dev/$disk" --seed 3

check "in a disk" pmemctl errors inject "$disk" 1M 4K
is "its list" "$(list_badblocks)" '2048 8'
is "the namespace's" "$(cat "$ND/$device/errors/list")" "$((data + 1048576)) 4096 injected"
check_fails "it can't be read" pmem-io pread --direct --offset 1M --length 4K "/dev/$disk"
check "saved" pmemctl errors save "$disk" --state-dir /tmp/state
check "cleared, by its node" pmemctl errors forget "/dev/$disk" 1M 4K --state-dir /tmp/state
is "nothing is saved" "$(jq -c '.list.errors' /tmp/state/nfit-*.json)" '[]'
is_empty "nothing is listed" list_badblocks
check "the data is there" pmem-io verify --direct --offset 1M --length 8K "/dev/$disk" --seed 3

pmemctl errors inject "$disk" 1M 4K
pmemctl errors save "$disk" --state-dir /tmp/state
rebind "$device"
disk=$(disk_of "$nfit")
check "cleared, on a disk that has not had the saved list" pmemctl errors forget "$disk" 1M 4K --state-dir /tmp/state
is_empty "nothing is listed again" list_badblocks
is "nothing is saved, either" "$(jq -c '.list.errors' /tmp/state/nfit-*.json)" '[]'

check "in a namespace" pmemctl errors inject "$nfit" $((data + 8192)) 4K
is "the disk's list" "$(list_badblocks)" '16 8'
check "cleared, by the device that claims it" pmemctl errors forget "$device" $((data + 8192)) 4096
check "listed alone" pmemctl errors inject "$disk" 512 512 --list-only
is "a sector" "$(list_badblocks)" '1 1'
pmemctl errors forget "$disk" 512 512 --json >/tmp/forget.json
check_schema "errors forget" /tmp/forget.json
is "for programs" "$(jq -c . /tmp/forget.json)" "{\"version\":1,\"device\":\"$device\",\"offset\":$((data + 512)),\"length\":512,\"result\":\"cleared\"}"

printf 'start=4096, size=4096\n' | sfdisk -q --label dos "/dev/$disk"
wait_for 60 test -e "/dev/${disk}p1"
check "in a partition" sh -c "pmemctl errors inject --json /dev/${disk}p1 1M 4K >/tmp/inject.json"
check_schema "errors inject" /tmp/inject.json
is "is in the disk's list" "$(list_badblocks)" '6144 8'
check "cleared" pmemctl errors forget "${disk}p1" 1M 4K
check_fails "behind its end" pmemctl errors inject "${disk}p1" 2M 4K
check_fails "a part of a page" pmemctl errors inject "$disk" 1M 512
check_fails "a part of a sector" pmemctl errors inject --list-only "$disk" 100 512
check_fails "nothing" pmemctl errors inject --list-only "$disk" 0 0
check_fails "2^63" pmemctl errors inject --list-only "$disk" 0x8000000000000000 4096
check_fails "behind the namespace" pmemctl errors inject --list-only "$nfit" 64M 4K
check_fails "what is no disk" pmemctl errors forget /dev/null 0 4K
is_empty "none of it is listed" list_badblocks
