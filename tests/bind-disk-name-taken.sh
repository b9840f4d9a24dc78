#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A probe whose disk name is taken fails with EEXIST and leaves nothing behind; once the name is free, it succeeds.
# expect-splat: cannot create duplicate filename
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 6
provide pages=1
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
provider decoy "$DISK"
is "the errno" "$(bind_error "$NAMESPACE")" "File exists"
is "no claim in iomem" "$(grep -c "$NAMESPACE" /proc/iomem)" 0
check "the other disk is as it was" test -e "/sys/block/$DISK"
provider decoy ""
is_empty "and now" bind_error "$NAMESPACE"
check "it writes" write_sectors "$DISK" 0 8 </dev/zero
check "it reads" read_sectors "$DISK" 0 8
