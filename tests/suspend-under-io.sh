#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Suspend with a mounted DAX file system and running I/O keeps the data intact, and I/O continues after resume.
#
# It only freezes and thaws processes: the 9p file system that the checkout is on does not come back from a suspended device.
# compare
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/busy.sh"

cleanup() {
	exec 5>&-
	echo none >/sys/power/pm_test
	umount $MNT 2>/dev/null
}

# enter_sleep STATE: the result in words.
enter_sleep() {
	env echo "$1" 2>&1 >/sys/power/state | sed 's/.*write error: //' | grep . || echo "suspended and resumed"
}

need fio
[ -e /sys/power/pm_test ] || skip_all "this kernel has no /sys/power/pm_test"
plan 11
load_driver
disk=$(labelled_disk -m fsdax -s 96M)
raw=$(plain_disk)
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 2M $MNT/file
pmem-io map-write --sync --durable flush $MNT/file --seed 1
pmem-io fill --direct --length 2M "/dev/$raw" --seed 1
record "states" "$(cat /sys/power/state)"
echo 1 >/sys/module/suspend/parameters/pm_test_delay

echo freezer >/sys/power/pm_test
for state in freeze mem; do
	start_fio "/dev/$raw" --filename="/dev/$raw" --allow_file_create=0 --direct=1 --offset=8M --size=8M --ioengine=libaio --iodepth=4 \
		--verify=crc32c --rate_iops="$PACE"
	is "$state, processes: the answer" "$(enter_sleep $state)" "suspended and resumed"
	status=0
	wait "$fio_pid" || status=$?
	is "$state, processes: fio went on, without an error" "$status" 0
	check "$state, processes: the DAX file" pmem-io map-verify --sync $MNT/file --seed 1
	check "$state, processes: the raw disk" pmem-io verify --direct --length 2M "/dev/$raw" --seed 1
done
echo none >/sys/power/pm_test
umount $MNT
check "fsck" e2fsck -fn "/dev/$disk"
record_result "the module" rmmod "$DRIVER"
