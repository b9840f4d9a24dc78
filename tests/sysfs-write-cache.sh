#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# dax/write_cache is on by default where CPU caches are not saved, takes booleans, refuses other text, and a rebind resets it.
# compare
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# check_accepted TEXT VALUE
check_accepted() {
	check "$1 is taken" sh -c "echo $1 >$file"
	is "$1 means $2" "$(cat "$file")" "$2"
}

# check_refused TEXT VALUE: the value stays.
check_refused() {
	is "$1 is refused" "$(echo "$1" | tee "$file" 2>&1 >/dev/null | grep -o "Invalid argument")" "Invalid argument"
	is "$1 changes nothing" "$(cat "$file")" "$2"
}

# test_disk NAME DISK DEVICE OF THE nd BUS: 46 rows.
test_disk() {
	file=/sys/block/$2/dax/write_cache
	add_write_rows "$1" "/sys/block/$2" dax/write_cache -- 0 '0\n' 1 '1\n' 2 -1 00 01 10 1x y n Y N yes no on off ON OFF o onion offer true false t f T F \
		' 1' '1 ' '0 1' '\n' '' 'garbage' '0*4095' '0*4096' '0*4097' 'n*9000' '1*65536'
	add_result_row "$1: more than one read" sh -c "cat $file $file | tr '\n' ' '"
	add_result_row "$1: a byte at a time" dd "if=$file" bs=1 status=none
	add_result_row "$1: written by nobody in particular" setpriv --reuid 65534 --clear-groups sh -c "echo 1 >$file"
	echo 0 >"$file"
	echo 1 >"/sys/block/$2/queue/iostats"
	add_result_row "$1: 0, then the disk's own cache" cat "$file" "/sys/block/$2/queue/write_cache"
	echo "write through" >"/sys/block/$2/queue/write_cache"
	add_result_row "$1: write through, and this" cat "$file" "/sys/block/$2/queue/write_cache" "/sys/block/$2/queue/fua"
	rebind "$3"
	add_result_row "$1: bound anew" cat "$file" "/sys/block/$2/queue/write_cache" "/sys/block/$2/queue/iostats"
}

need setpriv perl
plan 159
load_driver
disk=$(labelled_disk -m fsdax -M mem)
plain=$(plain_disk)
file=/sys/block/$disk/dax/write_cache
is "fsdax: at first" "$(cat "$file")" 1
is "plain: at first" "$(cat "/sys/block/$plain/dax/write_cache")" 1
is "its mode" "$(stat -c %a "$file")" 644
check_accepted 0 0
check_accepted 1 1
check_accepted off 0
check_accepted y 1
check_refused 2 1
check_refused maybe 1
check_accepted n 0
is "the other disk's is its own" "$(cat "/sys/block/$plain/dax/write_cache")" 1
unload_driver
load_driver
is "loaded again, it is as at first" "$(cat "$file")" 1

test_disk "raw" "$plain" "$(device_of_disk "$plain")"
test_disk "e820" "$(e820_disk)" "$(e820_ns)"
test_disk "fsdax" "$disk" "$(device_of_disk "$disk")"
sector=$(make_fsdax "$(e820_ns)")
# While a file system is mounted with DAX.
make_fs ext4 "$sector"
mount_dax "$sector"
add_write_rows "mounted" "/sys/block/$sector" dax/write_cache -- 0 1
umount $MNT
make_namespace -e "$(e820_ns)" -m raw >/dev/null
report_rows
