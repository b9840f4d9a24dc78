#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Zeroing of whole pages of a DAX file repairs one that nobody knows to be unmapped from the direct map.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem oopses in memcpy_flushcache"
need xfs_io
plan 3
provide nr_regions=2 pages=1
realtime=$(disk_of "$(namespaces pmem_provider | sed -n 2p)")
modprobe xfs
# A hole within an extent of 64 KiB cannot be freed, so XFS zeroes it.
mkfs.xfs -q -f -K --unsupported -d agcount=1 -m reflink=0,rmapbt=0 -r "rtdev=/dev/$realtime,extsize=64k" "/dev/$DISK"
mount_dax "$DISK" "rtdev=/dev/$realtime"
xfs_io -f -c "chattr +r" -c "falloc 0 128k" $MNT/file
pmem-io fill $MNT/file
provider unmap $(($(pmem-io phys $MNT/file --offset 80K) - MEMORY))
check "a hole over the page" fallocate -p -o 73728 -l 40960 $MNT/file
check "is zero" cmp -n 40960 -i 73728:0 $MNT/file /dev/zero
is_empty "nothing is listed" badblocks_of "$realtime"
