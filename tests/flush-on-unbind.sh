#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The region is flushed at unbind, at module removal, and when the region is disabled.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 4
provide pages=1
provider flushes 0
pattern aaaaaaa 8 | write_sectors "$DISK" 0 8
rebind "$NAMESPACE"
is "unbind" "$(provider flushes)" 1

provider flushes 0
rmmod "$DRIVER"
is "rmmod" "$(provider flushes)" 1

load_driver
provider flushes 0
ndctl disable-region -b pmem_provider all >/dev/null 2>&1
is "a region that is disabled" "$(provider flushes)" 1
ndctl enable-region -b pmem_provider all >/dev/null 2>&1
settle
is "what was written is there" "$(read_sectors "$DISK" 0 8 | md5sum)" "$(pattern aaaaaaa 8 | md5sum)"
