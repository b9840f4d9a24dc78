#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A thousand machine checks within seconds are all listed and unreadable, do not flood the log, and can be repaired.
# vm: three
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/mce-inject.sh"
. "$(dirname "$0")/lib/badblocks.sh"

cleanup() {
	unload_driver
}

# read_pages: reads every 37th page; prints the answers, each once.
read_pages() {
	for page in $(seq 0 37 999); do
		errno_of pmem-io pread "/dev/$disk" --direct --offset $((page * 32768)) --length 4K
	done | sort -u
}

[ "$DRIVER" = rust_pmem ] || skip_all "C lists machine checks on memory of the NFIT alone"
need pmem-io
plan 9
load_driver
load_mce_inject
namespace=$(e820_ns)
disk=$(raw_disk "$namespace")
start=$(cat "$ND/$namespace/resource")
# Other tests may have left errors.
blkdiscard -f -z "/dev/$disk"
began=$(cut -d. -f1 /proc/uptime)
dmesg -C
mce_inject_pages "$start" 32768 0 999
echo "# in $(($(cut -d. -f1 /proc/uptime) - began)) s"
all_are_listed() {
	unlisted=$(unlisted_pages "$ND/$namespace/errors/list" 32768 0 1000) || return
	[ -z "$unlisted" ] || {
		echo "$(echo "$unlisted" | wc -l) are not"
		return 1
	}
}
check "each is on the exact list" wait_for 60 all_are_listed
is "the kernel has passed all of them on" "$(dmesg | grep -c 'records pool full')" 0
check "the disk's list has what fits in a page" fills_page "/sys/block/$disk/badblocks"
is "none can be read" "$(read_pages)" "Input/output error"
check "the driver says little" test "$(dmesg | grep -c rust_pmem)" -le 10
rebind "$namespace"
disk=$(disk_of "$namespace")
check "bound again, each is on the exact list" all_are_listed
blkdiscard -f -z "/dev/$disk"
is_empty "all written over, none is listed" cat "/sys/block/$disk/badblocks"
is_empty "nor on the exact list" cat "$ND/$namespace/errors/list"
check "all can be read" pmem-io pread "/dev/$disk" --direct --length 32M
