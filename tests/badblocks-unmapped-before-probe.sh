#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A page that is unmapped from the direct map before the probe, without any report, is listed when the driver binds.
#
# A write of a part of the page fails, a write of all of it repairs it.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "the C driver oopses in memcpy_flushcache"

# drop_error RANGE: the error text if the range can't be dropped from errors/list; nothing if it can.
drop_error() {
	env echo "drop $1" 2>&1 >"/sys/block/$DISK/device/errors/list" | sed 's/.*write error: //'
}

need pmem-io
plan 18
provide pages=1
# Unbinding leaves the page-table entry unchanged, and binding finds it.
provider unmap 1M
rebind "$NAMESPACE"
is "listed" "$(badblocks_of "$DISK")" "2048+8"
becomes "for the region as well" "2048+8" badblocks_of region0
is "a drop of a part of it" "$(drop_error "1048576 512")" "Input/output error"
is "still listed" "$(badblocks_of "$DISK")" "2048+8"
check_fails "a write of a part of it" sh -c "head -c 512 /dev/zero | dd of=/dev/$DISK bs=512 oseek=2049 oflag=direct"
tap_run pmem-io poll "/sys/block/$DISK/badblocks" --timeout 1 --run "pmem-io pwrite --direct --length 4K --offset 2M /dev/$DISK"
# shellcheck disable=SC2154 # tap_run sets it
is "nobody is woken by a write elsewhere" "$tap_status" 3
check "a write elsewhere" sh -c "head -c 512 /dev/zero | dd of=/dev/$DISK bs=512 oseek=2056 oflag=direct"
pattern aaaaaaa 8 | write_sectors "$DISK" 2048 8
is "repaired by a write over it" "$(read_sectors "$DISK" 2048 8 | md5sum)" "$(pattern aaaaaaa 8 | md5sum)"
check "a part of it can be written then" sh -c "head -c 512 /dev/zero | dd of=/dev/$DISK bs=512 oseek=2049 oflag=direct"

# The copy of a read fails, as with a machine check.
echo "add 3145728 4096" >"/sys/block/$DISK/device/errors/list"
provider fail "copy_mc_to_kernel 4096 $((MEMORY + 3145728))"
is "a drop of a page that can't be read" "$(drop_error "3145728 4096")" "Input/output error"
provider fail ""
is "it is listed" "$(badblocks_of "$DISK")" "6144+8"
is "a drop of it when it can be read" "$(drop_error "3145728 4096") $(badblocks_of "$DISK")" " "
echo "add 3145728 12288" >"/sys/block/$DISK/device/errors/list"
provider fail "copy_mc_to_kernel 4096 $((MEMORY + 3149824))"
is "a drop of three pages, of which the second can't be read" "$(drop_error "3145728 12288")" "Input/output error"
provider fail ""
is "they are listed from that one on" "$(cat "/sys/block/$DISK/device/errors/list")" "3149824 8192 user"

# A drop clears nothing: the bus would destroy the data.
pattern keepall 8 | write_sectors "$DISK" 8192 8
provider clear_wipes 1
provider bad 4M+4K
is_empty "a drop of an error of the bus" drop_error "4194304 4096"
check_fails "it is not listed" grep '^8192 ' "/sys/block/$DISK/badblocks"
is "the bus has it still" "$(provider bad)" "4194304+4096"
is "the data is as it was" "$(read_sectors "$DISK" 8192 8 | md5sum)" "$(pattern keepall 8 | md5sum)"
