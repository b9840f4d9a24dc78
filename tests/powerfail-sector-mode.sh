#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Sectors of a BTT that were acknowledged as durable are on the medium, with the map that finds them.
# soak
# vm: --cpu max --bare --nvdimm size=64M --powerfail range=64M@4G --cpus 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/powerfail.sh"

cleanup() {
	ndctl create-namespace -f -e "$(nfit_ns)" -m raw >/dev/null 2>&1
}

plan 4
load_driver
disk=/dev/$(ndctl create-namespace -f -e "$(nfit_ns)" -m sector -l 4K | jq -r .blockdev)
settle
head -c 64k /dev/urandom >/tmp/data
watch_stores
is_durable "O_DIRECT and fsync" dd if=/tmp/data of="$disk" bs=4k oflag=direct conv=fsync
is_durable "O_DIRECT and O_DSYNC" dd if=/tmp/data of="$disk" bs=4k oflag=direct,dsync
is_durable "the page cache and fsync" dd if=/tmp/data of="$disk" bs=4k conv=fsync
is_durable "unbind" rebind "$(device_of_disk "${disk#/dev/}")"
