#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A write over bad blocks, or of zeroes, clears the poison and removes it from all lists; what is not cleared stays listed.
#
# Sectors that the bus refuses to clear, or clears only in part, fail the write. On a bus without commands, the write removes
# errors from the disk's list.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# check_lists NAME SECTORS BYTES: the disk and the region list these sectors, the memory has these bad bytes.
check_lists() {
	prints "$1: the disk's list" "$2" badblocks_of "$DISK"
	prints "$1: the region's list" "$2" badblocks_of "$region"
	prints "$1: the memory" "$3" bad_memory
}

# bad_memory: the bad bytes of the memory, on one line.
bad_memory() {
	provider bad >/tmp/bad_memory
	xargs </tmp/bad_memory
}

# check_write_fails NAME OPERAND OF dd…: a direct write of zeroes.
check_write_fails() {
	write_name=$1
	shift
	check_fails "$write_name" sh -c "$(command -v dd) if=/dev/zero of=/dev/$DISK count=1 conv=notrunc $*"
}

need pmem-io
plan 39
provide bad=1M+512,2M+4K,3M+16K,5M+512 clear_wipes=1
region=${NAMESPACE#namespace}
region=region${region%.*}

# ---- all is cleared ----

pattern aaaaaaa 1 | write_sectors "$DISK" 2048 1
pattern bbbbbbb 8 | write_sectors "$DISK" 4096 8
check_lists "a sector and a page" "6144+32 10240+1" "3145728+16384 5242880+512"
pattern ccccccc 8 | write_sectors "$DISK" 6152 8
check_lists "a page in the midst" "6144+8 6160+16 10240+1" "3145728+4096 5242880+512 3153920+8192"
pattern ddddddd 6144 | write_sectors "$DISK" 6140 6144
check_lists "all the rest in one bio" "" ""

is "the sector reads" "$(read_sectors "$DISK" 2048 | md5sum)" "$(pattern aaaaaaa 1 | md5sum)"
is "the page reads" "$(read_sectors "$DISK" 4096 8 | md5sum)" "$(pattern bbbbbbb 8 | md5sum)"
is "the rest reads" "$(read_sectors "$DISK" 6140 6144 | md5sum)" "$(pattern ddddddd 6144 | md5sum)"
rebind "$NAMESPACE"
is_empty "the bus has forgotten them" badblocks_of "$DISK"
provider bad 1M+512
is "an error can come again" "$(badblocks_of "$DISK")" "2048+1"
pattern aaaaaaa 1 | write_sectors "$DISK" 2048 1
provider clear_wipes 0

# ---- nothing, or a part ----

provider bad 1M+4K,2M+4K
provider clear_limit 0
check_write_fails "a write that repairs nothing" bs=4k seek=256 oflag=direct
check_write_fails "nor does one that has to be durable" bs=4k seek=256 oflag=direct,dsync
is "it is listed" "$(badblocks_of "$DISK")" "2048+8 4096+8"
check_fails "it can't be read" read_sectors "$DISK" 2048

provider clear_limit 512
check_write_fails "a write that repairs only a part" bs=4k seek=512 oflag=direct
# rust_pmem lists a page until all of it is repaired, and adds the part that the bus has forgotten again.
case $DRIVER in
rust_pmem) listed="2048+8 4096+8" ;;
*) listed="2048+8 4097+7" ;;
esac
is "the unrepaired part is listed" "$(badblocks_of "$DISK")" "$listed"
rebind "$NAMESPACE"
is "bound again, it is listed" "$(badblocks_of "$DISK")" "$listed"
check_fails "the unrepaired part can't be read" read_sectors "$DISK" 4097

provider clear_limit 4096
provider clear_unit 4096
check_write_fails "a write of less than what can be cleared" bs=512 seek=2048 oflag=direct
check_fails "does not repair it" read_sectors "$DISK" 2048
provider clear_unit 0
check_write_fails "a write where nothing can be cleared" bs=4k seek=256 oflag=direct

provider clear_unit 512
pattern aaaaaaa 8 | write_sectors "$DISK" 2048 8
pattern bbbbbbb 8 | write_sectors "$DISK" 4096 8
is_empty "a later write repairs them" badblocks_of "$DISK"
is "the first reads" "$(read_sectors "$DISK" 2048 8 | md5sum)" "$(pattern aaaaaaa 8 | md5sum)"
is "the second reads" "$(read_sectors "$DISK" 4096 8 | md5sum)" "$(pattern bbbbbbb 8 | md5sum)"
provider clear_limit 4294967295

# ---- zeroes ----

provider bad 32M+16K
blkdiscard -f -z -o 32M -l 8K "/dev/$DISK"
is "BLKZEROOUT of a half" "$(badblocks_of "$DISK")" "65552+16"
fallocate -z -o $((32 << 20)) -l 1M "/dev/$DISK"
is_empty "fallocate of all" badblocks_of "$DISK"
is "it is zero" "$(read_sectors "$DISK" 65536 32 | md5sum)" "$(head -c 16384 /dev/zero | md5sum)"

mkfs.ext4 -q -F -b 4096 "/dev/$DISK"
mount_dax "$DISK"
# Fill the disk, so that the punched-out block is the one that ext4 reuses.
dd if=/dev/urandom of=$MNT/file bs=1M status=none 2>/dev/null || :
address=$(pmem-io phys $MNT/file --offset 1M)
provider bad "$((address - MEMORY))+4K"
check_fails "the block of the file is bad" pmem-io pread $MNT/file --offset 1M --length 4K
fallocate -p -o 1M -l 4K $MNT/file
sync
check "punched out, it reads" pmem-io pread $MNT/file --offset 1M --length 4K
check "100 bytes there" pmem-io pwrite $MNT/file --offset 1M --length 100
is_empty "used again, it is repaired" badblocks_of "$DISK"
umount $MNT

# ---- a bus without commands ----

provider_cleanup
provide commands=0 bad=1M+4K
is "listed" "$(badblocks_of "$DISK")" "2048+8"
check_fails "can't be read" read_sectors "$DISK" 2048 8
pattern aaaaaaa 8 | write_sectors "$DISK" 2048 8
is_empty "no more" badblocks_of "$DISK"
is "reads" "$(read_sectors "$DISK" 2048 8 | md5sum)" "$(pattern aaaaaaa 8 | md5sum)"
