#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A program that crashes on a bad page does not touch it again after a reboot, if the saved errors are restored.
#
# Without saved errors it reaches the memory again. Errors that an initramfs restores from an older copy of the saved list leave the
# kernel's list again if they were repaired; one that fails again meanwhile stays. What is repaired after the copy was restored
# is not restored again.
# vm: three
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

# listed: the offsets and origins of the list of the e820 memory.
listed() {
	cut -d ' ' -f 1,3 "$list" | sort -n >/tmp/listed
	paste -sd , /tmp/listed
}

[ "$DRIVER" = rust_pmem ] || skip_all "C lists machine checks on memory of the NFIT alone"
load_driver_anew
mount_state_dir "$(plain_disk)"
virtio=$(raw_disk "$(virtio_ns)")
namespace=$(e820_ns)
e820=$(raw_disk "$namespace")
list=$ND/$namespace/errors/list
refused="page 0 code 4 lsb 12 address 0x0"

case $STAGE in
1)
	plan 3
	for offset in 1048576 2097152 3145728 4194304; do
		echo "add $offset 4096" >"$list"
	done
	pmemctl errors save "$e820"
	# The copies of an initramfs: of the same errors, and of one that is not repaired.
	mkdir $STATE/copy
	cp "$(state_file e820 "$namespace")" $STATE/copy/
	pmem-io fill --direct --offset 2M --length 4K "/dev/$e820"
	pmem-io fill --direct --offset 3M --length 4K "/dev/$e820"
	echo "add 5242880 4096" >"$list"
	pmemctl errors save "$e820"
	is "three are saved" "$(jq -r '.list.errors[].offset' "$(state_file e820 "$namespace")" | xargs)" "1048576 4194304 5242880"

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
	plan 10
	# The page at 3M fails again.
	host mce $(($(namespace_start "$namespace") + 3145728))
	wait_for 60 grep -q '^3145728 ' "$list"
	is "the copy is restored" "$(restore --state-dir $STATE/copy "$e820")" "$e820 restored 24"
	prints "all are listed" "1048576 restored,2097152 restored,3145728 machine-check,4194304 restored" listed
	pmem-io fill --direct --offset 4M --length 4K "/dev/$e820"
	is "what the copy lacks is restored" "$(restore "$e820")" "$e820 restored 8"
	prints "what the saved list lacks has left, but for what fails again" \
		"1048576 restored,3145728 machine-check,5242880 restored" listed
	pmemctl errors save "$e820"
	echo "add 2097152 4096 restored" >"$list"
	is "a second time" "$(restore "$e820")" "$e820 there-already 0"
	prints "nothing leaves" "1048576 restored,2097152 restored,3145728 machine-check,5242880 restored" listed

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
