#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Repeated probe failures, early and late, leak nothing.
# expect-splat: cannot create duplicate filename
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/growth.sh"

try_bind() {
	bind_error "$NAMESPACE" >>/tmp/errors
}

plan 6
provide size=$((8 << 20))
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
provider claim 4M
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
