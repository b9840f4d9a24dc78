#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks on memory without an error log are saved as they happen, and restored after a power cut before the
# mount.
#
# e820 memory and virtio-pmem. Each restored error affects one page, as before.
# vm: three
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	[ "$STAGE" = 1 ] || umount $MNT $STATE 2>/dev/null
}

[ "$DRIVER" = rust_pmem ] || skip_all "C lists machine checks on memory of the NFIT alone"
load_driver
mount_state_dir "$(plain_disk)"
e820=$(raw_disk "$(e820_ns)")
virtio=$(raw_disk "$(virtio_ns)")

case $STAGE in
1)
	plan 3
	make_fs ext4 "$virtio" -O ^has_journal
	mount_dax "$virtio"
	fallocate -l 4M $MNT/file
	pmem-io map-write $MNT/file --durable fsync
	start_follow
	inject_mce "$e820" $(($(namespace_start "$(e820_ns)") + 1052672)) 6
	check "e820: saved soon" state_file_has "$(state_file e820 "$(e820_ns)")" '"offset": 1052672' '"length": 4096'
	address=$(pmem-io phys $MNT/file --offset 400K)
	inject_mce "$virtio" "$((address))"
	offset=$((address - $(namespace_start "$(virtio_ns)")))
	echo "$offset" >$STATE/offset
	check "virtio-pmem: saved soon" state_file_has "$(state_file virtio-pmem "$(virtio_ns)")" "\"offset\": $offset" '"length": 4096'
	# It follows the save.
	check "a line is logged for each" wait_for 40 sh -c "[ \$(grep -c '8 new' $FOLLOW) = 2 ]"
	sync
	host powercut
	;;
2)
	plan 14
	read -r offset <$STATE/offset
	is_empty "after a power cut nothing is listed" cat "/sys/block/$e820/badblocks" "/sys/block/$virtio/badblocks"
	is "restored" "$(restore "$e820" "$virtio" | cut -d ' ' -f 2- | xargs)" "restored 8 restored 8"
	is "e820: listed" "$(cat "/sys/block/$e820/badblocks")" '2056 8'
	is "virtio-pmem: listed" "$(cat "/sys/block/$virtio/badblocks")" "$((offset / 512)) 8"
	check_fails "e820: a read of it" pmem-io pread --direct --offset 1052672 --length 512 "/dev/$e820"
	check "e820: a read up to it" pmem-io pread --direct --length 1052672 "/dev/$e820"
	check "virtio-pmem: mounted" mount_dax "$virtio"
	check "a read of the file gives nothing of it" reads_up_to 409600 $MNT/file
	check "what is before it" pmem-io verify $MNT/file --length 400K
	check "what is behind it" pmem-io verify $MNT/file --offset 404K --length 3692K
	is "a mapping loses it alone" "$(pmem-io map-read $MNT/file)" "page 100 code 4 lsb 12 address 0x64000"
	is "again: there already" "$(restore --all | cut -d ' ' -f 2- | sort -u | xargs)" "nothing-saved 0 there-already 0"
	check "a write of the page" pmem-io fill $MNT/file --offset 400K --length 4K
	is_empty "repairs it" cat "/sys/block/$virtio/badblocks"
	;;
esac
