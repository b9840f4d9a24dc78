#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On XFS with data behind an info block, a machine check in a DAX file signals the process that maps that very page.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/sigbus.sh"

cleanup() {
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	umount $MNT 2>/dev/null
	rm -f /tmp/sigbus.*
}

plan 4
load_driver
disk=$(labelled_disk -m fsdax -M mem)
make_xfs_file "$disk"
map_start --length 4M $MNT/file
dmesg -C
pmem-io poll "/sys/block/$disk/badblocks" --run "host mce $((address))" >/tmp/sigbus.listed || :
check "the kernel has done what it can" wait_for 60 sh -c "dmesg | grep -q 'recovery action for dax page: Recovered'"
map_stop
is "the page is listed" "$(cat /tmp/sigbus.listed)" "$(((address - start) / 512)) 8"
is "the process gets SIGBUS, with the address" "$(sigbus_info)" "sigbus: 1 code 5 lsb 12 address 0x101000"
check "the file system survives" sh -c "echo x >$MNT/other && sync -f $MNT"
