#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Sectors of a BTT that were acknowledged as durable are on the medium, with the map that finds them.
# soak
# vm: powerfail-nvdimm 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/powerfail.sh"

cleanup() {
	ndctl create-namespace -f -e "$(nfit_ns)" -m raw >/dev/null 2>&1
}

plan 5
load_driver
raw=/dev/$(raw_disk "$(nfit_ns)")
watch_stores
dd if=/dev/zero of="$raw" bs=4k count=1 oflag=direct
is "a plain write is seen" "$(undurable)" 64
disk=/dev/$(ndctl create-namespace -f -e "$(nfit_ns)" -m sector -l 4K | jq -r .blockdev)
settle
head -c 64k /dev/urandom >/tmp/data
is_durable "O_DIRECT and fsync" dd if=/tmp/data of="$disk" bs=4k oflag=direct conv=fsync
is_durable "O_DIRECT and O_DSYNC" dd if=/tmp/data of="$disk" bs=4k oflag=direct,dsync
is_durable "the page cache and fsync" dd if=/tmp/data of="$disk" bs=4k conv=fsync
# What the page cache has is written when the disk goes away.
exec 5<"$disk"
dd if=/tmp/data of="$disk" bs=4k conv=notrunc status=none
is_durable "unbind" rebind "$(device_of_disk "${disk#/dev/}")"
exec 5<&-
