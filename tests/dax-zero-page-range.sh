#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The driver zeroes whole pages of a DAX file: a hole within an extent of XFS's real-time device.
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	rm -f /tmp/dax-zero-page-range.*
}

plan 7
need xfs_io
load_driver
data=$(labelled_disk -m fsdax -M mem -s 320M)
make_namespace -r "$(labelled_region)" -m fsdax -M mem -s 64M >/tmp/dax-zero-page-range.json
realtime=$(jq -r .blockdev /tmp/dax-zero-page-range.json)
modprobe xfs
# A hole within an extent of 64 KiB cannot be freed, so XFS zeroes it.
mkfs.xfs -q -f -m reflink=0,rmapbt=0 -r "rtdev=/dev/$realtime,extsize=64k" "/dev/$data"
check "mounted with DAX on both" mount_dax "$data" "rtdev=/dev/$realtime"
xfs_io -f -c "chattr +r" -c "falloc 0 128k" $MNT/file
pmem-io fill $MNT/file
check "the file has DAX" pmem-io map --sync --length 4K $MNT/file load
fallocate -p -o 8192 -l 40960 $MNT/file
check "the hole is zero" cmp -n 40960 -i 8192:0 $MNT/file /dev/zero
check "what is before it is not" pmem-io map-verify --length 8K $MNT/file
check "nor what is after it" pmem-io map-verify --offset 48K $MNT/file
check "the extent is whole" sh -c "xfs_io -r -c 'bmap -n 9' $MNT/file | grep -q '0: \[0..255\]'"
if [ "$DRIVER" = rust_pmem ]; then
	namespace=$(jq -r .dev /tmp/dax-zero-page-range.json)
	bad=$(($(pmem-io phys $MNT/file --offset 80K) - $(cat "$ND/$namespace/resource")))
	echo "add $bad 4096" >"/sys/block/$realtime/device/errors/list"
	check_fails "a hole over a page that can't be repaired" fallocate -p -o 73728 -l 40960 $MNT/file
	umount $MNT
	forget_errors "$realtime"
else
	skip "a hole over a page that can't be repaired" "C has no errors/list"
fi
