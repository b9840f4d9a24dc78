#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# errors/list: what is known of the errors of a namespace and where from, in any mode; what a user adds is there for everybody and at the next binding, what is dropped is not.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# has NAME DEVICE LINES: the exact list of the device of the nd bus.
has() {
	is "$1" "$(sort -n "$ND/$2/errors/list" | paste -sd ,)" "$3"
}

# told DEVICE WORDS: a command to it.
told() {
	echo "$2" >"$ND/$1/errors/list"
}

# pages DISK: what its badblocks has.
bad_of() {
	paste -sd , "/sys/block/$1/badblocks"
}

cleanup() {
	fresh_labels
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no such list"
plan 30
load_driver

ns=$(e820_ns)
disk=$(disk_of "$ns")
pmem-io fill --direct --length 1M "/dev/$disk"
has "raw: nothing at first" "$ns" ''
is "raw: who polls badblocks is woken" "$(pmem-io poll "/sys/block/$disk/badblocks" --run "echo add 8192 512 >$ND/$ns/errors/list")" '16 1'
told "$ns" "add 0x10000 4096 restored"
echo '65000 3' >"/sys/block/$disk/badblocks"
host mce $(($(cat "$ND/$ns/resource") + 1048576)) 6
wait_for 10 grep -q 2048 "/sys/block/$disk/badblocks"
has "raw: each with its origin" "$ns" '8192 512 user,65536 4096 restored,1048576 4096 machine-check,33280000 1536 user'
is "raw: the disk's list" "$(bad_of "$disk")" '16 1,128 8,2048 8,65000 3'
is "raw: the region's list" "$(paste -sd , "$ND/$ns/../badblocks")" '16 1,128 8,2048 8,65000 3'
rebind "$ns"
has "raw: bound again" "$ns" '8192 512 log,65536 4096 log,1048576 4096 log,33280000 1536 log'
is "raw: the disk's list then" "$(bad_of "$(disk_of "$ns")")" '16 1,128 8,2048 8,65000 3'
check "raw: dropped" told "$ns" "drop 8192 512"
check "raw: and all that there is" told "$ns" "drop 0 $((32 << 20))"
has "raw: nothing is left" "$ns" ''
is "raw: for the disk" "$(bad_of "$disk")" ''
is "raw: for the region" "$(cat "$ND/$ns/../badblocks")" ''
check "raw: what was there is there" pmem-io verify --direct --length 1M "/dev/$disk"
rebind "$ns"
has "raw: nor at the next binding" "$ns" ''

disk=$(labelled_disk -m fsdax -M dev -s 96M)
pfn=$(device_of_disk "$disk")
data=$(($(cat "$ND/$pfn/resource") - $(cat "$ND/$(cat "$ND/$pfn/namespace")/resource")))
told "$pfn" "add 8192 4096"
told "$pfn" "add $((data + 4096)) 4096"
has "fsdax: the page map, and the data" "$pfn" "8192 4096 user,$((data + 4096)) 4096 user"
is "fsdax: the disk has that of the data" "$(bad_of "$disk")" '8 8'
check "fsdax: both are dropped" told "$pfn" "drop 0 $((data + 8192))"
has "fsdax: nothing is left" "$pfn" ''
is "fsdax: for the disk" "$(bad_of "$disk")" ''

disk=$(labelled_disk -m sector -l 4096 -s 64M)
btt=$(device_of_disk "$disk")
region=$(labelled_region)
pmem-io fill --direct --length 1M "/dev/$disk"
told "$btt" "add $((1 << 20)) 4096"
has "sector: the list" "$btt" '1048576 4096 user'
check "sector: the region's list" test -s "$ND/$region/badblocks"
check_fails "sector: a block can't be read" pmem-io verify --direct --length 2M "/dev/$disk"
check "sector: dropped" told "$btt" "drop $((1 << 20)) 4096"
has "sector: nothing is left" "$btt" ''
is "sector: for the region" "$(cat "$ND/$region/badblocks")" ''
pmem-io fill --direct --length 1M "/dev/$disk"
check "sector: written again, it can be read" pmem-io verify --direct --length 1M "/dev/$disk"
told "$btt" "add $((32 << 20)) 512 device"
rebind "$btt"
has "sector: bound again" "$btt" '33554432 512 log'
check "sector: dropped again" told "$btt" "drop $((32 << 20)) 512"

check_fails "a user who is not root adds nothing" setpriv --reuid=1000 --clear-groups sh -c "echo add 0 512 >$ND/$(e820_ns)/errors/list"
has "and nothing is there" "$(e820_ns)" ''
