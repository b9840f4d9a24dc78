#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The tracepoints, functions and dynamic debug messages that the driver guide names show the driver's operations.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

TRACING=/sys/kernel/tracing

cleanup() {
	umount $MNT 2>/dev/null
	echo nop >$TRACING/current_tracer
	: >$TRACING/set_ftrace_filter
	echo >$TRACING/set_event
	echo 'module libnvdimm -p' >/proc/dynamic_debug/control
}

# is_traced EVENT COMMAND…: the command triggers the tracepoint or calls the function.
is_traced() {
	trace_event=$1
	shift
	: >$TRACING/trace
	case $trace_event in
	*:*) echo "$trace_event" >$TRACING/set_event ;;
	*)
		echo "$trace_event" >$TRACING/set_ftrace_filter
		echo function >$TRACING/current_tracer
		;;
	esac
	"$@" >/dev/null 2>&1 || :
	# A change of the tracer empties the buffer.
	cp $TRACING/trace /tmp/trace
	echo nop >$TRACING/current_tracer
	echo >$TRACING/set_event
	grep -q "[: ]${trace_event#*:}\(:\| <-\)" /tmp/trace
}

# check_traced EVENT COMMAND…
check_traced() {
	check "$1 while: ${2##*/} ${3:-}" is_traced "$@"
}

# is_logged TEXT COMMAND…: the command makes the kernel log the text.
is_logged() {
	debug_text=$1
	shift
	dmesg -C
	"$@" >/dev/null 2>&1 || :
	dmesg | grep -q "$debug_text"
}

# binds NAMESPACE: the name is part of subtest names.
binds() {
	rebind "$1"
}

plan 13
load_driver
namespace=$(e820_ns)
disk=$(e820_disk)
# The NVDIMM's bus has commands.
nvdimm=$(disk_of "$(nfit_ns)")
check_traced block:block_bio_queue dd if="/dev/$disk" of=/dev/null bs=4k count=1 iflag=direct
check_traced block:block_bio_complete dd if="/dev/$disk" of=/dev/null bs=4k count=1 iflag=direct
check_traced copy_mc_to_kernel dd if="/dev/$disk" of=/dev/null bs=4k count=1 iflag=direct
check_traced nvdimm_flush dd if=/dev/zero of="/dev/$disk" bs=4k count=1 conv=fsync
echo "0 8" >"/sys/block/$disk/badblocks"
check_traced badblocks_check dd if="/dev/$disk" of=/dev/null bs=4k count=1 iflag=direct
echo "0 8" >"/sys/block/$nvdimm/badblocks"
check_traced nvdimm_clear_poison dd if=/dev/zero of="/dev/$nvdimm" bs=4k count=1 oflag=direct
dd if=/dev/zero of="/dev/$disk" bs=4k count=1 oflag=direct status=none
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 2M $MNT/file
check_traced dax_direct_access pmem-io fill $MNT/file
check_traced fs_dax:dax_pte_fault_done sh -c "pmem-io map-write --length 4K $MNT/file; fallocate -l 12K $MNT/new; pmem-io map-write $MNT/new"
check_traced arch_wb_cache_pmem pmem-io map-write --durable msync $MNT/file
dmesg -C
check_traced ras:memory_failure_event sh -c "host mce $(pmem-io phys $MNT/file); timeout 60 sh -c 'until dmesg | grep -q recovery.action; do sleep 0.1; done'"
umount $MNT
forget_errors_now "$disk"
forget_errors_now "$nvdimm"
check_traced nvdimm_bus_probe binds "$namespace"
echo 'module libnvdimm +p' >/proc/dynamic_debug/control
check "dynamic debug of libnvdimm names the driver at probe" is_logged "START: $DRIVER.probe($namespace)" binds "$namespace"
check "and how it went" is_logged "END: $DRIVER.probe($namespace) = 0" binds "$namespace"
