#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A program that crashes on a bad page does not touch it again after a reboot, if the saved errors are restored.
#
# Without saved errors it reaches the memory again.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	[ "$STAGE" = 3 ] || return 0
	umount $MNT $STATE
	forget_errors "$virtio"
}

# touch_page: a program that maps the page; prints the signal.
touch_page() {
	pmem-io map-read $MNT/file --offset 400K --length 4K
}

[ "$DRIVER" = rust_pmem ] || skip_all "C lists machine checks on memory of the NFIT alone"
load_driver
mount_state_dir "$(plain_disk)"
virtio=$(disk_of "$(virtio_ns)")
refused="page 0 code 4 lsb 12 address 0x0"

case $STAGE in
1)
	plan 2
	make_fs ext4 "$virtio" -O ^has_journal
	mount_dax "$virtio"
	fallocate -l 4M $MNT/file
	pmem-io map-write $MNT/file --durable fsync
	sync
	is_empty "the page is there" touch_page
	inject_mce "$virtio" "$(pmem-io phys $MNT/file --offset 400K)"
	is "it is bad" "$(touch_page)" "$refused"
	host powercut
	;;
2)
	plan 4
	mount_dax "$virtio"
	is_empty "nothing was saved: the memory is touched again" touch_page
	start_follow
	inject_mce "$virtio" "$(pmem-io phys $MNT/file --offset 400K)"
	is "and fails again" "$(touch_page)" "$refused"
	check "this time it is saved" state_file_has "$(state_file virtio-pmem "$(virtio_ns)")" '"length": 4096'
	is "as one page" "$(jq -r '.list.errors[].length' "$(state_file virtio-pmem "$(virtio_ns)")")" 4096
	sync
	host powercut
	;;
3)
	plan 3
	is "restored" "$(restore "$virtio")" "$virtio restored 8"
	mount_dax "$virtio"
	is "the memory is not touched again" "$(touch_page)" "$refused"
	check "nor by read(2)" reads_up_to 409600 $MNT/file
	;;
esac
