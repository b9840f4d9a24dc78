#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Loading the module, without memory or with a namespace to bind, and probes that fail, early and late, leave nothing behind.
# expect-splat: cannot create duplicate filename
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/growth.sh"

case $DRIVER in
rust_pmem) module_file=$MODULE ;;
*) module_file=$(modinfo -n "$DRIVER") ;;
esac

reload() {
	rmmod "$DRIVER"
	insmod "$module_file"
}

list_present() {
	grep -c pmem /proc/iomem /proc/modules /proc/partitions
	find /sys/block /sys/class/bdi /dev /sys/kernel/debug/block -maxdepth 1 -name '*pmem*' | sort
}

try_bind() {
	bind_error "$NAMESPACE" >>/tmp/errors
}

plan 15
# There is no memory before the provider is loaded.
check "loaded" load_driver
check_fails "but not twice" insmod "$module_file"
is "it is there once" "$(grep -c "^$DRIVER " /proc/modules)" 1
is_empty "no disk" find /sys/block -name 'pmem*'
check "it goes" unload_driver
check "and comes again" sh -c "insmod $module_file && rmmod $DRIVER"

provide size=$((8 << 20))
before=$(list_present)
is_empty "nothing grows by each time" find_leaks reload
settle
is "what is there in the end" "$(list_present)" "$before"
check "the disk reads" read_sectors "$DISK" 0 8

echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
provider claim 4M
rm -f /tmp/errors
is_empty "a range that is claimed" find_leaks try_bind
is "it was refused each time" "$(sort -u /tmp/errors)" "Device or resource busy"
provider claim ""

rm /tmp/errors
provider decoy "$DISK"
is_empty "a name that is taken" find_leaks try_bind
is "that was refused each time, too" "$(sort -u /tmp/errors)" "File exists"
provider decoy ""
is_empty "then it is served" bind_error "$NAMESPACE"
check "and reads" read_sectors "$DISK" 0 8
