#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A probe that fails again and again, at its start, in its midst or at its end, leaves nothing behind.
# expect-splat: cannot create duplicate filename
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

try() {
	bind_error "$NAMESPACE" >>/tmp/errors
}

plan 6
provide size=$((8 << 20))
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
provider claim 4M
is "a range that is claimed" "$(find_leaks try)" ""
is "it was refused each time" "$(sort -u /tmp/errors)" "Device or resource busy"
provider claim ""

# Each time the kernel says where it was: not to the console.
dmesg -n 1
rm /tmp/errors
provider decoy "$DISK"
is "a name that is taken" "$(find_leaks try)" ""
is "that was refused each time, too" "$(sort -u /tmp/errors)" "File exists"
provider decoy ""
dmesg -n 8
is "then it is served" "$(bind_error "$NAMESPACE")" ""
check "and reads" read_sectors "$DISK" 0 8
