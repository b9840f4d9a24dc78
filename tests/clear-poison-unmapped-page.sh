#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A listed page that is unmapped from the direct map: a write of a part of it fails, a write of all of it repairs it.
#
# Zeroes repair one that is not listed.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "the C driver oopses in memcpy_flushcache"

# nowait_write OFFSET: writes 64 KiB; prints their number, or the error.
nowait_write() {
	pmem-io pwrite --nowait --direct --offset "$1" --length 64K "/dev/$DISK" 2>&1 | sed 's/.*: //; s/ (.*//'
}

plan 25
provide pages=1
pattern before_ 8 | write_sectors "$DISK" 2056 8
provider unmap 1M
provider bad 1M+4K

check_fails "a write of its first sector" sh -c "$(command -v dd) if=/dev/zero of=/dev/$DISK bs=512 seek=2048 count=1 oflag=direct"
check_fails "a write of its last sector" sh -c "$(command -v dd) if=/dev/zero of=/dev/$DISK bs=512 seek=2055 count=1 oflag=direct"
check_fails "a write across its end" sh -c "$(command -v dd) if=/dev/zero of=/dev/$DISK bs=4608 oseek=1052160 oflag=direct,seek_bytes count=1"
is "still listed" "$(badblocks_of "$DISK")" "2048+8"
is "and still bad" "$(provider bad)" "1048576+4096"
is "the next page is as it was" "$(read_sectors "$DISK" 2056 8 | md5sum)" "$(pattern before_ 8 | md5sum)"
pattern aaaaaaa 24 >/tmp/data
check "a write over it" write_sectors "$DISK" 2040 24 </tmp/data
is_empty "repairs it" badblocks_of "$DISK"
is "it reads" "$(read_sectors "$DISK" 2040 24 | md5sum)" "$(pattern aaaaaaa 24 | md5sum)"
is "and can be written without a wait" "$(nowait_write 1M)" 65536
provider unmap 1M
is "unmapped again: one that must not wait repairs it" "$(nowait_write 1M)" 65536
is_empty "and it is not listed" badblocks_of "$DISK"
provider unmap 3M
pattern aaaaaaa 8 >/tmp/data
check "a page that nobody knows to be unmapped" write_sectors "$DISK" 6144 8 </tmp/data
is "it reads as well" "$(read_sectors "$DISK" 6144 8 | md5sum)" "$(md5sum </tmp/data)"
is_empty "and is not listed" badblocks_of "$DISK"
rebind "$NAMESPACE"
is_empty "no error after a rebind" badblocks_of "$DISK"

pattern before_ 24 | write_sectors "$DISK" 4088 24
provider unmap 2M
check "zeroes over a page that is unmapped since the probe" blkdiscard --force --zeroout --offset 2M --length 4K "/dev/$DISK"
is "it has them" "$(read_sectors "$DISK" 4096 8 | md5sum)" "$(head -c 4096 /dev/zero | md5sum)"
is_empty "and no error" badblocks_of "$DISK"

# The kernel has to split a mapping of the direct map, for which it may have no memory.
pattern lastone 8 >/tmp/data
provider unmap 1M
provider bad 1M+4K
provider fail "clear_mce_nospec -12"
is "if it can't be mapped again, a write of all of it" "$(errno_of write_sectors "$DISK" 2048 8 </tmp/data)" "Input/output error"
is "a drop from the list" "$(errno_of sh -c "env echo drop 1048576 4096 >/sys/block/$DISK/device/errors/list")" "Input/output error"
is "the kernel was asked each time" "$(provider fail)" 2
provider fail ""
is "it is listed" "$(badblocks_of "$DISK")" "2048+8"
check "if it can be mapped, a write repairs it" write_sectors "$DISK" 2048 8 </tmp/data
is "so that it reads" "$(read_sectors "$DISK" 2048 8 | md5sum) $(badblocks_of "$DISK")" "$(md5sum </tmp/data) "
