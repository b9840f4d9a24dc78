#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Swap on pmem returns pages unchanged, and blocks unloading of the driver while it is in use.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

need mkswap swapon swapoff python3
group=/sys/fs/cgroup/stack-swap
cleanup() {
	swapoff "/dev/$disk"
	rmdir $group
	umount $MNT
	umount /sys/fs/cgroup
	rm -f /tmp/stack-swap.py
} 2>/dev/null

# run_hog: fills 48 MiB with incompressible data in a cgroup of 24 MiB; prints how many of the pages came back changed.
run_hog() (
	echo 0 >$group/memory.swap.peak 2>/dev/null || :
	exec sh -c "echo \$\$ >$group/cgroup.procs && exec python3 /tmp/stack-swap.py"
)
cat >/tmp/stack-swap.py <<'END'
from hashlib import shake_128

def page(n):
    return shake_128(b"%d" % n).digest(1 << 20)

held = [page(n) for n in range(48)]
print(sum(held[n] != page(n) for n in range(48)))
END

# read_ahead: the pages of swap that were read before they were needed, since boot.
read_ahead() {
	awk '$1 == "swap_ra" { print $2 }' /proc/vmstat
}

# test_swap NAME DISK: 5 subtests.
test_swap() {
	mkswap -q "/dev/$2"
	check "$1: on" swapon "/dev/$2"
	before=$(read_ahead)
	is "$1: the pages that come back changed" "$(run_hog)" 0
	is "$1: the disk is fast, so that none is read ahead" "$(read_ahead)" "$before"
	swapped=$(($(cat $group/memory.swap.peak) >> 20))
	check "$1: most of them had been there" test "$swapped" -ge 16
	check "$1: off" swapoff "/dev/$2"
}

plan 15
load_driver
[ ! -e /sys/module/zswap ] || echo N >/sys/module/zswap/parameters/enabled
mount -t cgroup2 none /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir $group
echo 24M >$group/memory.max

disk=$(labelled_disk -m fsdax -M mem -s 96M)
test_swap fsdax "$disk"
mkswap -q "/dev/$disk"
dmesg -C
swapon "/dev/$disk"
record "how the kernel sees it" "$(dmesg | sed -n 's/.*Priority:[-0-9]* *//p')"
record_unload_refused "in use: the driver can't go"
record_result "in use: nor can it be made a file system" mkfs.ext4 -q "/dev/$disk"
check "off" swapoff "/dev/$disk"
check "the driver goes" unload_driver
load_driver
disk=$(labelled_disk -m sector -s 96M)
test_swap sector "$disk"
