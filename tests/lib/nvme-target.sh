# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that export a disk by the kernel's NVMe target, and import it on the same machine.

nvmet=/sys/kernel/config/nvmet
subsystem=$nvmet/subsystems/pmem
host_id=11111111-2222-3333-4444-555555555555

# stop_export: removes the ports, the subsystem and the modules.
stop_export() {
	rm -f $nvmet/ports/*/subsystems/pmem
	rmdir $nvmet/ports/*
	echo 0 >$subsystem/namespaces/1/enable
	rmdir $subsystem/namespaces/1 $subsystem
	modprobe -r nvme_loop nvme_tcp nvmet_tcp nvmet
}

# export_disk DISK: as namespace 1 of the subsystem.
export_disk() {
	mkdir $subsystem
	echo 1 >$subsystem/attr_allow_any_host
	mkdir $subsystem/namespaces/1
	echo "/dev/$1" >$subsystem/namespaces/1/device_path
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
