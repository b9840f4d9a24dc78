#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# errors/list shows the errors of a namespace with their origins in any mode, and takes adds and drops.
#
# Added errors are visible to all and survive a rebind; dropped errors do not come back.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# check_list NAME DEVICE LINES: errors/list of a device of the nd bus.
check_list() {
	prints "$1" "$3" sorted_list "$2"
}

# sorted_list DEVICE: its errors/list on one line.
sorted_list() {
	sort -n "$ND/$1/errors/list" >/tmp/sorted_list
	paste -sd , /tmp/sorted_list
}

# edit_errors DEVICE COMMAND
edit_errors() {
	echo "$2" >"$ND/$1/errors/list"
}

# badblocks_line DISK: its badblocks on one line.
badblocks_line() {
	paste -sd , "/sys/block/$1/badblocks"
}

cleanup() {
	fresh_labels
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no such list"
plan 32
load_driver

ns=$(e820_ns)
disk=$(disk_of "$ns")
pmem-io fill --direct --length 1M "/dev/$disk"
check_list "raw: nothing at first" "$ns" ''
is "raw: who polls badblocks is woken" "$(pmem-io poll "/sys/block/$disk/badblocks" --run "echo add 8192 512 >$ND/$ns/errors/list")" '16 1'
# Nobody else notifies for memory without NFIT.
wait_for 60 grep -q '^16 ' "$ND/$ns/../badblocks"
sleep 0.2
check "raw: who polls the region's list is woken as well" pmem-io poll "$ND/$ns/../badblocks" --timeout 10 --run "echo add 0x10000 4096 restored >$ND/$ns/errors/list"
echo '65000 3' >"/sys/block/$disk/badblocks"
# A larger range keeps its origin: the report of a page does not identify the origin of all of it.
edit_errors "$ns" "add 2097152 12288 device"
host mce $(($(cat "$ND/$ns/resource") + 2101248))
host mce $(($(cat "$ND/$ns/resource") + 1048576)) 6
# The memory-failure recovery may have reported the page before.
wait_for 60 grep -qx '1048576 4096 machine-check' "$ND/$ns/errors/list"
check_list "raw: each with its origin" "$ns" '8192 512 user,65536 4096 restored,1048576 4096 machine-check,2097152 12288 device,33280000 1536 user'
is "raw: the disk's list" "$(badblocks_line "$disk")" '16 1,128 8,2048 8,4096 24,65000 3'
becomes "raw: the region's list" '16 1,128 8,2048 8,4096 24,65000 3' paste -sd , "$ND/$ns/../badblocks"
rebind "$ns"
check_list "raw: bound again" "$ns" '8192 512 log,65536 4096 log,1048576 4096 log,2097152 12288 log,33280000 1536 log'
is "raw: the disk's list then" "$(badblocks_line "$(disk_of "$ns")")" '16 1,128 8,2048 8,4096 24,65000 3'
check "raw: dropped" edit_errors "$ns" "drop 8192 512"
check "raw: and all that there is" edit_errors "$ns" "drop 0 $((32 << 20))"
check_list "raw: nothing is left" "$ns" ''
is_empty "raw: for the disk" badblocks_line "$disk"
becomes "raw: for the region" '' cat "$ND/$ns/../badblocks"
check "raw: what was there is there" pmem-io verify --direct --length 1M "/dev/$disk"
rebind "$ns"
check_list "raw: nor at the next binding" "$ns" ''
edit_errors "$ns" "add 4194304 12288"
wait_for 60 grep -qx '8192 24' "$ND/$ns/../badblocks"
edit_errors "$ns" "drop 4198400 4096"
check "raw: a page in the middle is dropped, for the region as well" wait_for 60 \
	sh -c "[ \"\$(paste -sd , $ND/$ns/../badblocks)\" = '8192 8,8208 8' ]"
edit_errors "$ns" "drop 4194304 12288"

disk=$(labelled_disk -m fsdax -M dev -s 96M)
pfn=$(device_of_disk "$disk")
data=$(($(cat "$ND/$pfn/resource") - $(cat "$ND/$(cat "$ND/$pfn/namespace")/resource")))
edit_errors "$pfn" "add 8192 4096"
edit_errors "$pfn" "add $((data + 4096)) 4096"
check_list "fsdax: the memmap, and the data" "$pfn" "8192 4096 user,$((data + 4096)) 4096 user"
is "fsdax: the disk has that of the data" "$(badblocks_line "$disk")" '8 8'
check "fsdax: both are dropped" edit_errors "$pfn" "drop 0 $((data + 8192))"
check_list "fsdax: nothing is left" "$pfn" ''
is_empty "fsdax: for the disk" badblocks_line "$disk"

disk=$(labelled_disk -m sector -l 4096 -s 64M)
btt=$(device_of_disk "$disk")
region=$(labelled_region)
pmem-io fill --direct --length 2M "/dev/$disk"
edit_errors "$btt" "add $((1 << 20)) 4096"
check_list "sector: the list" "$btt" '1048576 4096 user'
check "sector: the region's list" wait_for 60 grep -q . "$ND/$region/badblocks"
check_fails "sector: a block can't be read" pmem-io pread --direct --length 2M "/dev/$disk"
check "sector: dropped" edit_errors "$btt" "drop $((1 << 20)) 4096"
check_list "sector: nothing is left" "$btt" ''
becomes "sector: for the region" '' cat "$ND/$region/badblocks"
pmem-io fill --direct --length 2M "/dev/$disk"
check "sector: written again, it can be read" pmem-io verify --direct --length 2M "/dev/$disk"
edit_errors "$btt" "add $((32 << 20)) 512 device"
rebind "$btt"
check_list "sector: bound again" "$btt" '33554432 512 log'
check "sector: dropped again" edit_errors "$btt" "drop $((32 << 20)) 512"

check_fails "a user who is not root adds nothing" setpriv --reuid=1000 --clear-groups sh -c "echo add 0 512 >$ND/$(e820_ns)/errors/list"
check_list "and nothing is there" "$(e820_ns)" ''
