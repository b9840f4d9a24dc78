#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A dm-writecache on a disk with a bad block: DAX mode refuses to make the cache, bio mode fails that block with EIO.
# compare
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/stack.sh"

need dmsetup
cleanup() {
	dmsetup remove_all --noudevsync --noudevrules
	rmmod brd
	provider_cleanup
} 2>/dev/null

# create_cache TYPE
create_cache() {
	dm_create cached "0 $(sector_count ram0) writecache $1 /dev/ram0 /dev/$DISK 4096 0"
}

plan 8
load_brd 16
provide pages=1
record "p: where a store is not durable by itself" "$(create_cache p 2>&1 | grep -o 'failed: .*')"
provider_cleanup
provide pages=1 dimm=0
provider bad 20M+4K
record "p: the cache is not made" "$(create_cache p 2>&1 | grep -o 'failed: .*')"
check_fails "p: it is not there" test -e /dev/mapper/cached
write_sectors "$DISK" 40960 8 </dev/zero
check "p: repaired by a write, it is made" create_cache p
check "p: and serves" fio_verify /dev/mapper/cached --size=4M
dm_remove cached

clean_disk "$DISK"
create_cache s
pmem-io fill --direct /dev/mapper/cached --length 16M
provider bad 8M+4K
# Reads each page separately.
record "s: pages that can't be read" "$(dd if=/dev/mapper/cached of=/dev/null bs=4k iflag=direct conv=noerror 2>&1 | grep 'error reading' | sed 's/.*: //')"
check "s: the cache goes on" pmem-io pwrite --direct /dev/mapper/cached --length 4K
dm_remove cached
check_unloads
