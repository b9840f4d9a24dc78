#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The NVMe target exports the disk by loop and by TCP, and an initiator on the same machine imports it.
# compare
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/nvme-target.sh"
. "$(dirname "$0")/lib/stack.sh"

need nvme fio
cleanup() {
	umount $MNT
	nvme disconnect -n pmem
	stop_export
	umount /sys/kernel/config
} >/dev/null 2>&1

plan 24
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 96M)
clean_disk "$disk"
mount -t configfs none /sys/kernel/config
modprobe -a nvmet nvme_loop nvmet_tcp nvme_tcp
check "exported" export_disk "$disk"
add_port 1 trtype loop
add_port 2 trtype tcp adrfam ipv4 traddr 127.0.0.1 trsvcid 4420

for transport in loop tcp; do
	case $transport in
	loop) check "$transport: connected" connect_remote -t loop ;;
	tcp) check "$transport: connected" connect_remote -t tcp -a 127.0.0.1 -s 4420 ;;
	esac
	remote=$(remote_disk)
	is "$transport: its size" "$(sector_count "$remote")" "$(sector_count "$disk")"
	record "$transport: queue" "$(queue_attributes "$remote" dax write_cache fua logical_block_size physical_block_size)"
	check_disk "$transport" "$remote"
	pmem-io fill --direct "/dev/$remote" --length 4M --seed 7
	check "$transport: what was written there is here" pmem-io verify --direct "/dev/$disk" --length 4M --seed 7
	# By loop, the target passes the initiator's memory on: the bios have parts that are not whole sectors.
	pmem-io fill --direct --misalign 4 "/dev/$remote" --length 4M --seed 9
	check "$transport: from memory at an odd multiple of 4" pmem-io verify --direct "/dev/$disk" --length 4M --seed 9
	nvme disconnect -n pmem >/dev/null
done
record_unload_refused "exported, the driver can't go"
check "the export is withdrawn" stop_export
check_unloads
