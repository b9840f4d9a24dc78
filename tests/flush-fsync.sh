#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# fsync flushes the region once; reads and plain writes do not flush it.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 4
provide pages=1
provider flushes 0
pattern aaaaaaa 8 | write_sectors "$DISK" 0 8
is "a direct write" "$(provider flushes)" 0
read_sectors "$DISK" 0 8 >/dev/null
is "a direct read" "$(provider flushes)" 0
pattern bbbbbbb 8 | dd of="/dev/$DISK" bs=4k count=1 oflag=direct conv=fsync status=none
is "a direct write and fsync" "$(provider flushes)" 1
provider flushes 0
pattern ccccccc 800 | dd of="/dev/$DISK" bs=4k conv=fsync status=none
is "writes by the page cache, and one fsync" "$(provider flushes)" 1
