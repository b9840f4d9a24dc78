#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# MAP_SYNC stays refused on virtio-pmem, whose host must be asked to make a store durable, whatever other memory came and went before it.
# compare
# vm: --bare --e820 64M@512M --virtio-pmem size=64M
# quick
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# answer: whether a mapping of a file with MAP_SYNC is granted.
answer() {
	mount_dax "$disk"
	fallocate -l 64K $MNT/file
	if pmem-io map-write --sync --length 4096 $MNT/file >/tmp/virtio-pmem-map-sync-stays-refused.said 2>&1; then
		echo granted
	else
		sed -n 's/.*: \(.*\) (os error.*/refused, \1/p' /tmp/virtio-pmem-map-sync-stays-refused.said
	fi
	umount $MNT
}

# moves NAMESPACE bind|unbind: and time for what is freed to be free.
moves() {
	echo "$1" >"/sys/bus/nd/drivers/$DRIVER/$2"
	sleep 0.2
}

plan 2
# What one processor frees it gets again.
taskset -p 1 $$ >/dev/null
load_driver
synchronous=$(e820_ns)
asynchronous=$(virtio_ns)
disk=$(disk_of "$asynchronous")
make_fs ext4 "$disk" -O ^has_journal
is "at first" "$(answer)" "refused, Operation not supported"
answers=$(
	for _ in 1 2 3 4 5 6; do
		moves "$asynchronous" unbind
		moves "$synchronous" unbind
		moves "$asynchronous" bind
		moves "$synchronous" bind
		answer
	done | sort -u | xargs
)
record "after the other has gone" "$answers"
