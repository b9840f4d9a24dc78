#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bad block below device mapper or in a partition fails only its own sector, and a write from above repairs it.
#
# A read of the sector fails with EIO; an access to its page of a mapped DAX file gets SIGBUS.
# compare
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/stack.sh"

need dmsetup sfdisk
cleanup() {
	umount $MNT 2>/dev/null
	dmsetup remove_all --noudevsync --noudevrules
	provider_cleanup
}

# test_bad_sector NAME SECTOR DISK DISK_SECTOR: makes sector SECTOR of /dev/mapper/NAME bad, which is DISK_SECTOR of
# DISK: 6 subtests.
test_bad_sector() {
	top=/dev/mapper/$1
	pmem-io fill --direct "$top" --offset $((($2 - 8) * 512)) --length 8704
	provider bad "$(provider_offset "$3" "$4")+512"
	is "$1: the bad sector is listed below" "$(badblocks_of "$3")" "$4+1"
	record "$1: a read of it" "$(pmem-io pread --direct "$top" --offset $(($2 * 512)) --length 512 2>&1)"
	record "$1: a read of the megabyte around it" "$(pmem-io pread --direct "$top" --offset $((($2 - 1024) * 512)) --length 1M 2>&1)"
	check "$1: the sectors before" pmem-io verify --direct "$top" --offset $((($2 - 8) * 512)) --length 4096
	check "$1: the sectors behind" pmem-io verify --direct "$top" --offset $((($2 + 1) * 512)) --length 4096
	pmem-io fill --direct "$top" --offset $(($2 * 512)) --length 512
	is_empty "$1: written, it is repaired" badblocks_of "$3"
}

# provider_offset DISK SECTOR: its offset in the provider's memory; each disk has one half.
provider_offset() {
	case $1 in
	"$FIRST") echo $(($2 * 512)) ;;
	*) echo $(($2 * 512 + (32 << 20))) ;;
	esac
}

# test_bad_file NAME: makes a page of a DAX file bad: 8 subtests.
test_bad_file() {
	make_fs ext4 "mapper/$1"
	mount_dax "mapper/$1"
	truncate -s 4M $MNT/file
	pmem-io fill $MNT/file
	provider bad "$(($(pmem-io phys $MNT/file --offset 400K) - MEMORY))+512"
	is "$1: a mapping: one page is refused" "$(pmem-io map-read $MNT/file)" "page 100 code 4 lsb 12 address 0x64000"
	record "$1: a read of the page" "$(pmem-io pread $MNT/file --offset 400K --length 4K 2>&1)"
	check "$1: a read over it gives nothing of it" reads_up_to 409600 $MNT/file
	check "$1: what is before" pmem-io verify $MNT/file --length 400K
	check "$1: what is behind" pmem-io verify $MNT/file --offset 404K --length 3692K
	check "$1: written over" pmem-io pwrite $MNT/file --offset 400K --length 4K
	is_empty "$1: nothing is listed any more" cat "/sys/block/$FIRST/badblocks" "/sys/block/$SECOND/badblocks"
	check "$1: all of it" pmem-io map-verify $MNT/file
	umount $MNT
}

plan 33
provide nr_regions=2 pages=1
FIRST=$DISK
SECOND=$(disk_of "$(namespaces pmem_provider | sed -n 2p)")

dm_create linear "0 32768 linear /dev/$FIRST 4096\n32768 32768 linear /dev/$SECOND 2048"
test_bad_sector linear 40007 "$SECOND" $((40007 - 32768 + 2048))
test_bad_file linear
dm_remove linear

# Chunks of 64 KiB: sector 10000 is in chunk 78, which is chunk 39 of the first disk.
dm_create stripe "0 65536 striped 2 128 /dev/$FIRST 0 /dev/$SECOND 4096"
test_bad_sector stripe 10000 "$FIRST" $((39 * 128 + 10000 - 78 * 128))
test_bad_file stripe
dm_remove stripe

# On a partition: badblocks counts sectors of the disk, I/O sectors of the partition.
printf 'label: gpt\nstart=2048, size=32768\n' | sfdisk -q "/dev/$FIRST"
pmem-io fill --direct "/dev/${FIRST}p1" --length 4M
provider bad 2M+512
is "partition: listed for the disk" "$(badblocks_of "$FIRST")" "4096+1"
record "partition: a read of the bad sector" "$(pmem-io pread --direct "/dev/${FIRST}p1" --offset 1M --length 512 2>&1)"
check "partition: the sectors before" pmem-io verify --direct "/dev/${FIRST}p1" --length 1M
check "partition: the sectors behind" pmem-io verify --direct "/dev/${FIRST}p1" --offset $(((1 << 20) + 512)) --length 1M
pmem-io fill --direct "/dev/${FIRST}p1" --offset 1M --length 4K
is_empty "partition: written, it is repaired" badblocks_of "$FIRST"
