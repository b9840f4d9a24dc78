#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Data that a block device has acknowledged as durable is on the medium; unbind and handover leave nothing behind.
# soak
# vm: powerfail-nvdimm 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/powerfail.sh"

# write FLAGS OF dd…: writes 16 pages.
write() {
	dd if=/tmp/data of="$disk" bs=4k "$@" status=none
}

cleanup() {
	unload_both_drivers
}

need_both_drivers
need pmemctl
plan 11
load_driver
disk=/dev/$(raw_disk "$(nfit_ns)")
head -c 64k /dev/urandom >/tmp/data
watch_stores
write oflag=direct
is "a plain O_DIRECT write promises nothing" "$(undurable)" 1024
write oflag=direct conv=fsync
is_durable "O_DIRECT and fsync" write oflag=direct conv=fsync
is_durable "the same data again" write oflag=direct conv=fsync
is_durable "O_DIRECT and O_DSYNC" write oflag=direct,dsync
is_durable "O_SYNC through the page cache" write oflag=sync
is_durable "the page cache and fsync" write conv=fsync
is_durable "msync of a mapping" pmem-io map-write "$disk" --length 64K --durable msync
is_durable "zeroed blocks and fsync" sh -c "blkdiscard -z -o 64K -l 64K $disk && dd if=/tmp/data of=$disk bs=512 count=1 oflag=direct conv=fsync"
write oflag=direct
rebind "$(nfit_ns)"
is "unbind" "$(undurable)" 0
load_both_drivers
write oflag=direct
check "handover to $(other_driver)" pmemctl swap-driver --to "$(other_driver)" "${disk#/dev/}"
is "handover" "$(undurable)" 0
