#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A write(2) of a whole bad page of a DAX file repairs it; a write of a part of it fails and changes nothing. A page that is
# unmapped after its repair is bad again.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# repairs_file ARGUMENT OF pmem-io fill…: writes to the file; fails if anything is still listed.
repairs_file() {
	pmem-io fill $MNT/file "$@" && [ -z "$(badblocks_of "$DISK")" ]
}

need pmem-io
plan 27
provide pages=1
mkfs.ext4 -q -b 4096 "/dev/$DISK"
mount_dax "$DISK"
truncate -s 1M $MNT/file
pmem-io fill $MNT/file
address=$(pmem-io phys $MNT/file --offset 400K)
sector=$(((address - MEMORY) / 512))
provider bad "$((sector * 512))+4K"
listed="$sector+8"
is "listed" "$(badblocks_of "$DISK")" "$listed"

check_fails "100 bytes in it" pmem-io pwrite $MNT/file --offset 409700 --length 100
check_fails "a page from amidst a sector of it on" pmem-io pwrite $MNT/file --offset 411748 --length 4K
check_fails "a page from its middle on" pmem-io pwrite $MNT/file --offset 402K --length 4K
is "it is still listed" "$(badblocks_of "$DISK")" "$listed"
check "the page before is as it was" pmem-io verify $MNT/file --length 400K
check "the page behind is as it was" pmem-io verify $MNT/file --offset 404K --length 620K
provider clear_limit 0
check_fails "a page that is not cleared" pmem-io pwrite $MNT/file --offset 400K --length 4K --seed 2
is "that is still listed" "$(badblocks_of "$DISK")" "$listed"
provider clear_limit 4096
check "the whole page" pmem-io fill $MNT/file --offset 400K --length 4K
is_empty "repairs it" badblocks_of "$DISK"
check "all of the file is there" pmem-io verify $MNT/file
check "in a mapping as well" pmem-io map-verify $MNT/file

provider bad "$((sector * 512))+8K"
is "a bad page and half of another: bytes written" "$(pmem-io pwrite $MNT/file --offset 400K --length 6K 2>&1)" 4096
is "the other is still listed" "$(badblocks_of "$DISK")" "$((sector + 8))+8"
check "both as a whole: nothing is listed" repairs_file --offset 400K --length 8K
provider bad "$((sector * 512))+4K"
is "a bad page and half of a good one: bytes written" "$(pmem-io pwrite $MNT/file --offset 400K --length 6K 2>&1)" 6144
is_empty "the page is repaired" badblocks_of "$DISK"
check "all of the file is there again" pmem-io verify $MNT/file

# The kernel unmaps a page from its direct map after it has reported the failure, and so perhaps after the repair. A read of the
# disk stands for the report.
provider unmap "$((sector * 512))"
check_fails "unmapped: a read of the disk" read_sectors "$DISK" "$sector" 8
if [ "$DRIVER" = rust_pmem ]; then
	is "it is listed then" "$(badblocks_of "$DISK")" "$listed"
	check "a write repairs that" repairs_file --offset 400K --length 4K
	provider unmap "$((sector * 512))"
	is "unmapped after the repair: a load" "$(pmem-io map-read $MNT/file --offset 400K --length 4K)" "page 0 code 4 lsb 12 address 0x0"
	is "it is listed again" "$(badblocks_of "$DISK")" "$listed"
	check "a write repairs it again" repairs_file --offset 400K --length 4K
	provider bad "$((sector * 512 + 4096))+4K"
	check "a page that was repaired, in front of a bad one: a write repairs both" repairs_file --offset 400K --length 8K
	# No failure of the first page has been reported.
	first=$(($(pmem-io phys $MNT/file --offset 600K) - MEMORY))
	provider bad "$((first + 4096))+4K"
	provider unmap $first
	pmem-io pwrite $MNT/file --offset 600K --length 8K >/dev/null 2>&1 || :
	check "an unmapped page in front of a bad one: a second write repairs both" repairs_file --offset 600K --length 8K
else
	for row in "it is listed then" "a write repairs that" "unmapped after the repair: a load" "it is listed again" "a write repairs it again" \
		"a page that was repaired, in front of a bad one: a write repairs both" \
		"an unmapped page in front of a bad one: a second write repairs both"; do
		skip "$row" "C does not list a page that is unmapped"
	done
fi
