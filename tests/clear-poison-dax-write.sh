#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A write(2) of a whole bad page of a DAX file repairs it; a write of a part of it fails and changes nothing.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

need pmem-io
cleanup() {
	umount /mnt 2>/dev/null
	provider_cleanup
}

plan 13
provide pages=1
mkfs.ext4 -q -b 4096 "/dev/$DISK"
mount -o dax "/dev/$DISK" /mnt
truncate -s 1M /mnt/file
pmem-io fill /mnt/file
address=$(pmem-io phys /mnt/file --offset 400K)
sector=$(((address - (512 << 20)) / 512))
provider bad "$((sector * 512))+4K"
listed="$sector+8"
is "listed" "$(badblocks_of "$DISK")" "$listed"

check_fails "100 bytes in it" pmem-io pwrite /mnt/file --offset 409700 --length 100
check_fails "a page from amidst a sector of it on" pmem-io pwrite /mnt/file --offset 411748 --length 4K
check_fails "a page from its middle on" pmem-io pwrite /mnt/file --offset 402K --length 4K
is "it is still listed" "$(badblocks_of "$DISK")" "$listed"
check "the page before is as it was" pmem-io verify /mnt/file --length 400K
check "the page behind is as it was" pmem-io verify /mnt/file --offset 404K --length 620K
provider clear_limit 0
check_fails "a page that is not cleared" pmem-io pwrite /mnt/file --offset 400K --length 4K --seed 2
is "that is still listed" "$(badblocks_of "$DISK")" "$listed"
provider clear_limit 4096
check "the whole page" pmem-io fill /mnt/file --offset 400K --length 4K
is "repairs it" "$(badblocks_of "$DISK")" ""
check "all of the file is there" pmem-io verify /mnt/file
check "in a mapping as well" pmem-io map-verify /mnt/file
