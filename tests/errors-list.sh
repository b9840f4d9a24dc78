#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# errors/list shows the errors of a namespace with their origins in any mode, and takes adds and drops, but no invalid ones.
#
# Added errors are visible to all and survive a rebind; dropped errors do not come back. Invalid writes to it, and to
# badblocks, are refused with the right errno and change nothing. In sector mode, a bad range that spans several BTT map
# entries is one line, and can be dropped in pieces.
# quick
# vm: labels
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

cleanup() {
	forget_errors "$e820"
	[ "$DRIVER" = nd_pmem ] || fresh_labels
	unload_driver
}

# check_refused FILE ERRNO TEXT…: each text is refused.
check_refused() {
	refused_file=$1
	refused_errno=$2
	shift 2
	for refused_text; do
		is "$(basename "$refused_file"): $(printf %.40s "$refused_text")" \
			"$(env printf '%b' "$refused_text" 2>&1 >"$refused_file" | sed 's/.*: //')" "$refused_errno"
	done
}

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

need env pmem-io
case $DRIVER in
nd_pmem) plan 6 ;;
*) plan 93 ;;
esac
load_driver_anew
ns=$(e820_ns)
e820=$(raw_disk "$ns")

# ---- invalid writes ----

badblocks=/sys/block/$e820/badblocks
echo '64 8' >"$badblocks"
check_refused "$badblocks" 'Invalid argument' 'add 0 512' '8' '-1 8' '8 0' '8 -8'
is "badblocks is as it was" "$(cat "$badblocks")" '64 8'
[ "$DRIVER" = rust_pmem ] || exit 0
list=$ND/$ns/errors/list
end=$(cat "$ND/$ns/size")
long=$(head -c 5000 /dev/zero | tr '\0' 1)
# Different origins and lengths, more than one page of text.
awk 'BEGIN { for (i = 0; i < 300; i++) printf "add %d %d %s\n", 65536 + i * 8192, 512 + i % 8 * 512, i % 2 ? "device" : "restored" }' |
	pmem-io lines "$list"
before=$(sort -n "$list")
check_refused "$list" 'Invalid argument' 'add' 'drop' 'add 0' 'drop 0' 'add 0 0' 'drop 512 0' 'add 1 512' 'add 512 511' 'drop 100 512' \
	'add -512 512' 'add 512 -512' 'add 0 512 log' 'add 0 512 injected' 'add 0 512 machine-check' 'add 0 512 firmware' 'add 0 512 nonsense' \
	'add 0 512 user user' 'drop 0 512 user' 'poison 0 4096' 'clear 0 512' 'ADD 0 512' 'add 0x 512' 'add x 512' 'add 0 512K' \
	'add 99999999999999999999 512' 'add 0 18446744073709551616' '\377\376\001\000\004' ' ' "$long" \
	'add 0 512\nadd 512 512' 'drop 65536 512\ndrop 73728 512' 'add 0 512\000' 'drop 65536 512 device' 'add 0 512 poison' 'drop 0 0x'
check_refused "$list" 'Numerical result out of range' "add $end 512" "add $((end - 512)) 1024" "drop $end 512" "add 0 $((end + 512))" \
	'add 9223372036854775808 512' 'add 512 9223372036854775808' 'add 18446744073709551104 512' \
	'drop 18446744073709551104 1024' 'add 0x8000000000000000 0x8000000000000000'
is "a second command by the same descriptor" \
	"$({
		env printf 'drop 16384 512'
		env printf 'add 0 512'
	} 2>&1 >"$list" | sed 's/.*: //')" 'Invalid argument'
is "the exact list is as it was" "$(sort -n "$list" | md5sum)" "$(echo "$before" | md5sum)"
check "with more than a page of text" test "${#before}" -gt 4096
check "without inject=1 there is no file in debugfs" test ! -e /sys/kernel/debug/rust_pmem
forget_errors "$e820"

# ---- raw ----

pmem-io fill --direct --length 1M "/dev/$e820"
check_list "raw: nothing at first" "$ns" ''
is "raw: who polls badblocks is woken" "$(pmem-io poll "$badblocks" --run "echo add 8192 512 >$list")" '16 1'
# Nobody else notifies for memory without NFIT.
wait_for 60 grep -q '^16 ' "$ND/$ns/../badblocks"
sleep 0.2
check "raw: who polls the region's list is woken as well" pmem-io poll "$ND/$ns/../badblocks" --timeout 10 --run "echo add 0x10000 4096 restored >$list"
echo '65000 3' >"$badblocks"
# A larger range keeps its origin: the report of a page does not identify the origin of all of it.
edit_errors "$ns" "add 2097152 12288 device"
host mce $(($(cat "$ND/$ns/resource") + 2101248))
host mce $(($(cat "$ND/$ns/resource") + 1048576)) 6
# The memory-failure recovery may have reported the page before.
wait_for 60 grep -qx '1048576 4096 machine-check' "$list"
check_list "raw: each with its origin" "$ns" '8192 512 user,65536 4096 restored,1048576 4096 machine-check,2097152 12288 device,33280000 1536 user'
is "raw: the disk's list" "$(badblocks_line "$e820")" '16 1,128 8,2048 8,4096 24,65000 3'
becomes "raw: the region's list" '16 1,128 8,2048 8,4096 24,65000 3' paste -sd , "$ND/$ns/../badblocks"
rebind "$ns"
check_list "raw: bound again" "$ns" '8192 512 log,65536 4096 log,1048576 4096 log,2097152 12288 log,33280000 1536 log'
is "raw: the disk's list then" "$(badblocks_line "$(disk_of "$ns")")" '16 1,128 8,2048 8,4096 24,65000 3'
check "raw: dropped" edit_errors "$ns" "drop 8192 512"
check "raw: and all that there is" edit_errors "$ns" "drop 0 $end"
check_list "raw: nothing is left" "$ns" ''
is_empty "raw: for the disk" badblocks_line "$e820"
becomes "raw: for the region" '' cat "$ND/$ns/../badblocks"
check "raw: what was there is there" pmem-io verify --direct --length 1M "/dev/$e820"
rebind "$ns"
check_list "raw: nor at the next binding" "$ns" ''
edit_errors "$ns" "add 4194304 12288"
wait_for 60 grep -qx '8192 24' "$ND/$ns/../badblocks"
edit_errors "$ns" "drop 4198400 4096"
check "raw: a page in the middle is dropped, for the region as well" wait_for 60 \
	sh -c "[ \"\$(paste -sd , $ND/$ns/../badblocks)\" = '8192 8,8208 8' ]"
edit_errors "$ns" "drop 4194304 12288"

# ---- fsdax ----

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

# ---- sector ----

disk=$(labelled_disk -m sector -l 4096 -s 64M)
btt=$(device_of_disk "$disk")
list=$ND/$btt/errors/list
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
start=$((32 << 20))
edit_errors "$btt" "add $start 512 device"
rebind "$btt"
check_list "sector: bound again" "$btt" '33554432 512 log'
check "sector: dropped again" edit_errors "$btt" "drop $start 512"

check "a range of 1 MiB is added" edit_errors "$btt" "add $start $((1 << 20))"
is "it is one line" "$(timeout 10 cat "$list")" "$start $((1 << 20)) user"
check "a page of it is dropped, where two entries touch" edit_errors "$btt" "drop $((start + (256 << 10))) 4096"
is "the rest is listed" "$(sorted_ranges "$list")" "$start 262144
$((start + 266240)) 782336"
check "what is behind is dropped" edit_errors "$btt" "drop $((start + 266240)) 782336"
is "the front is listed" "$(sorted_ranges "$list")" "$start 262144"
echo "drop $start 262144" >"$list"
is_empty "nothing is left" cat "$list"

ns=$(e820_ns)
check_fails "a user who is not root adds nothing" setpriv --reuid=1000 --clear-groups sh -c "echo add 0 512 >$ND/$ns/errors/list"
check_list "and nothing is there" "$ns" ''
