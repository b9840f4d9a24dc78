#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# MAP_SYNC stays refused on virtio-pmem after a synchronous device of the other kind was unbound and rebound.
# compare
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
# quick
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# map_sync_result: whether MAP_SYNC on a file is granted.
map_sync_result() {
	mount_dax "$disk"
	fallocate -l 64K $MNT/file
	if pmem-io map-write --sync --length 4096 $MNT/file >/tmp/virtio-pmem-map-sync-stays-refused.output 2>&1; then
		echo granted
	else
		sed -n 's/.*: \(.*\) (os error.*/refused, \1/p' /tmp/virtio-pmem-map-sync-stays-refused.output
	fi
	umount $MNT
}

# move_binding NAMESPACE bind|unbind: waits until freed memory is free.
move_binding() {
	echo "$1" >"/sys/bus/nd/drivers/$DRIVER/$2"
	sleep 0.2
}

plan 2
# On one CPU, so that freed memory is reused at once.
taskset -p 1 $$ >/dev/null
load_driver
synchronous=$(e820_ns)
asynchronous=$(virtio_ns)
disk=$(disk_of "$asynchronous")
make_fs ext4 "$disk" -O ^has_journal
is "at first" "$(map_sync_result)" "refused, Operation not supported"
for _ in 1 2 3 4 5 6; do
	move_binding "$asynchronous" unbind
	move_binding "$synchronous" unbind
	move_binding "$asynchronous" bind
	move_binding "$synchronous" bind
	map_sync_result
done >/tmp/virtio-pmem-map-sync-stays-refused.answers
answers=$(sort -u /tmp/virtio-pmem-map-sync-stays-refused.answers | xargs)
# A record would accept any value of rust_pmem that nd_pmem has as well.
if [ "$DRIVER" = rust_pmem ]; then
	is "after the other has gone" "$answers" "refused, Operation not supported"
else
	record "after the other has gone" "$answers"
fi
