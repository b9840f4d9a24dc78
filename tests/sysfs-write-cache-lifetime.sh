#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# dax/write_cache accepts the recorded values, and a rebind resets it.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# test_disk NAME DISK DEVICE OF THE nd BUS
test_disk() {
	file=/sys/block/$2/dax/write_cache
	add_write_rows "$1" "/sys/block/$2" dax/write_cache -- 0 '0\n' 1 '1\n' 2 -1 00 01 10 y n Y N yes no on off ON OFF o onion offer true false t f T F \
		' 1' '1 ' '0 1' '\n' '' 'garbage' '0*4095' '0*4096' '0*4097' 'n*9000'
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
load_driver
disk=$(plain_disk)
test_disk "raw" "$disk" "$(device_of_disk "$disk")"
test_disk "e820" "$(e820_disk)" "$(e820_ns)"
disk=$(labelled_disk -m fsdax -M mem)
test_disk "fsdax" "$disk" "$(device_of_disk "$disk")"
sector=$(make_fsdax "$(e820_ns)")
# While a file system is mounted with DAX.
make_fs ext4 "$sector"
mount_dax "$sector"
add_write_rows "mounted" "/sys/block/$sector" dax/write_cache -- 0 1
umount $MNT
make_namespace -e "$(e820_ns)" -m raw >/dev/null
report_rows
