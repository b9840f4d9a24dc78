#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The NVMe target exports the disk by loop and by TCP, and an initiator on the same machine imports it.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

need nvme fio
nvmet=/sys/kernel/config/nvmet
subsystem=$nvmet/subsystems/pmem
host_id=11111111-2222-3333-4444-555555555555
cleanup() {
	umount $MNT
	nvme disconnect -n pmem
	stop_export
	umount /sys/kernel/config
} >/dev/null 2>&1

# stop_export: removes the ports, the subsystem and the modules.
stop_export() {
	rm -f $nvmet/ports/*/subsystems/pmem
	rmdir $nvmet/ports/*
	echo 0 >$subsystem/namespaces/1/enable
	rmdir $subsystem/namespaces/1 $subsystem
	modprobe -r nvme_loop nvme_tcp nvmet_tcp nvmet
}

# export_disk: as namespace 1 of the subsystem.
export_disk() {
	mkdir $subsystem
	echo 1 >$subsystem/attr_allow_any_host
	mkdir $subsystem/namespaces/1
	echo "/dev/$disk" >$subsystem/namespaces/1/device_path
	echo 1 >$subsystem/namespaces/1/enable
}

# add_port NUMBER ATTRIBUTE VALUE…
add_port() {
	mkdir "$nvmet/ports/$1"
	port_folder=$nvmet/ports/$1
	shift
	while [ $# -gt 0 ]; do
		echo "$2" >"$port_folder/addr_$1"
		shift 2
	done
	ln -s $subsystem "$port_folder/subsystems/pmem"
}

# connect_remote ARGUMENTS OF nvme connect…: connects, and waits for the disk.
connect_remote() {
	nvme connect -n pmem --hostnqn "nqn.2014-08.org.nvmexpress:uuid:$host_id" --hostid $host_id "$@" >/dev/null
	wait_for 30 sh -c 'test -b /dev/nvme*n1'
}

# remote_disk: the name of the imported disk.
remote_disk() {
	basename /dev/nvme*n1
}

plan 24
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 96M)
clean_disk "$disk"
mount -t configfs none /sys/kernel/config
modprobe -a nvmet nvme_loop nvmet_tcp nvme_tcp
check "exported" export_disk
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
