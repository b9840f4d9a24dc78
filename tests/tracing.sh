#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What Documentation/rust_pmem.rst names for tracing shows what the driver does: tracepoints, functions that it calls, dynamic debug.
. "$(dirname "$0")/lib/test.sh"

TRACING=/sys/kernel/tracing

cleanup() {
	umount $MNT 2>/dev/null
	echo nop >$TRACING/current_tracer
	: >$TRACING/set_ftrace_filter
	echo >$TRACING/set_event
	echo 'module libnvdimm -p' >/proc/dynamic_debug/control
}

# traced EVENT COMMAND…: the command runs while the tracepoint, or the function, is on; whether it was seen.
traced() {
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
	# Another tracer begins with an empty buffer.
	cp $TRACING/trace /tmp/trace
	echo nop >$TRACING/current_tracer
	echo >$TRACING/set_event
	grep -q "[: ]${trace_event#*:}\(:\| <-\)" /tmp/trace
}

# shows EVENT COMMAND…
shows() {
	check "$1 while: ${2##*/} ${3:-}" traced "$@"
}

# debugged TEXT COMMAND…: whether the kernel's log says the text when the command has run.
debugged() {
	debug_text=$1
	shift
	dmesg -C
	"$@" >/dev/null 2>&1 || :
	dmesg | grep -q "$debug_text"
}

# binds TO_WHAT
binds() {
	rebind "$1"
}

plan 13
load_driver
namespace=$(e820_ns)
disk=$(e820_disk)
# Its bus has commands.
nvdimm=$(disk_of "$(nfit_ns)")
shows block:block_bio_queue dd if="/dev/$disk" of=/dev/null bs=4k count=1 iflag=direct
shows block:block_bio_complete dd if="/dev/$disk" of=/dev/null bs=4k count=1 iflag=direct
shows copy_mc_to_kernel dd if="/dev/$disk" of=/dev/null bs=4k count=1 iflag=direct
shows nvdimm_flush dd if=/dev/zero of="/dev/$disk" bs=4k count=1 conv=fsync
echo "0 8" >"/sys/block/$disk/badblocks"
shows badblocks_check dd if="/dev/$disk" of=/dev/null bs=4k count=1 iflag=direct
echo "0 8" >"/sys/block/$nvdimm/badblocks"
shows nvdimm_clear_poison dd if=/dev/zero of="/dev/$nvdimm" bs=4k count=1 oflag=direct
dd if=/dev/zero of="/dev/$disk" bs=4k count=1 oflag=direct status=none
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 2M $MNT/file
shows dax_direct_access pmem-io fill $MNT/file
shows fs_dax:dax_pte_fault_done sh -c "pmem-io map-write --length 4K $MNT/file; fallocate -l 12K $MNT/new; pmem-io map-write $MNT/new"
shows arch_wb_cache_pmem pmem-io map-write --durable msync $MNT/file
shows ras:memory_failure_event host mce "$(pmem-io phys $MNT/file)"
umount $MNT
forget_errors "$disk"
forget_errors "$nvdimm"
shows nvdimm_bus_probe binds "$namespace"
echo 'module libnvdimm +p' >/proc/dynamic_debug/control
check "dynamic debug of libnvdimm names the driver at probe" debugged "START: $DRIVER.probe($namespace)" binds "$namespace"
check "and how it went" debugged "END: $DRIVER.probe($namespace) = 0" binds "$namespace"
