#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After unbind and bind, or unload and load, a namespace has the same disk with the same data.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

need pmem-io
plan 8
provide pages=1
size=$(cat "/sys/block/$DISK/size")
pmem-io fill "/dev/$DISK" --length 4M
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
check_fails "unbound: no disk" test -e "/sys/block/$DISK"
is "unbound: no claim in iomem" "$(grep -c "$NAMESPACE" /proc/iomem)" 0
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
is "bound: the disk" "$(disk_of "$NAMESPACE")" "$DISK"
is "bound: its size" "$(cat "/sys/block/$DISK/size")" "$size"
check "bound: its bytes" pmem-io verify "/dev/$DISK" --length 4M
unload_driver
check_fails "unloaded: no disk" test -e "/sys/block/$DISK"
load_driver
check "loaded: its bytes" pmem-io verify "/dev/$DISK" --length 4M
check_fails "an unbound namespace can't be unbound" sh -c "echo namespace7.7 >/sys/bus/nd/drivers/$DRIVER/unbind"
