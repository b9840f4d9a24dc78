#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The new data is durable before poison is cleared, so that an interrupted write leaves the error or the data.
#
# That a clear-error command does not change the contents is up to the platform: this provider's does not.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	umount $MNT 2>/dev/null
	provider unmap ""
	provider_cleanup
}

# words FILE…: the first 8 bytes of each file as a number, as the provider prints them.
words() {
	for file; do
		od -An -tu8 -N8 "$file"
	done | xargs
}

# written_before_clear NAME COMMAND…: the command writes /tmp/new at the provider's address "watch", which is bad.
written_before_clear() {
	name=$1
	shift
	check "$name" "$@"
	is "$name: it was there when poison was cleared" "$(provider cleared)" "$(words /tmp/new)"
	is "$name: and flushed" "$(provider flushed)" "$(words /tmp/new)"
}

need pmem-io
case $DRIVER in
rust_pmem) plan 15 ;;
*) plan 12 ;;
esac
provide pages=1
pattern newdata 8 >/tmp/new
pattern olddata 2048 | write_sectors "$DISK" 2048 2048

provider watch $((1 << 20))
provider bad 1M+4K
written_before_clear "a page" dd if=/tmp/new of="/dev/$DISK" bs=4k seek=256 oflag=direct
provider watch $(((1 << 20) + 8192))
provider bad "$(((1 << 20) + 8192))+512"
pattern newsect 8 >/tmp/new
written_before_clear "a sector" dd if=/tmp/new of="/dev/$DISK" bs=512 count=1 seek=2064 oflag=direct
provider watch $(((1 << 20) + 16384))
provider bad "$(((1 << 20) + 16384))+4K"
head -c 4096 /dev/zero >/tmp/new
written_before_clear "zeroes" blkdiscard -f -z -o $(((1 << 20) + 16384)) -l 4K "/dev/$DISK"

mkfs.ext4 -q -b 4096 "/dev/$DISK"
mount_dax "$DISK"
truncate -s 1M $MNT/file
pmem-io fill $MNT/file
at=$(($(pmem-io phys $MNT/file --offset 400K) - MEMORY))
provider watch $at
provider bad "$at+4K"
pattern newfile 8 >/tmp/new
written_before_clear "a page of a DAX file" dd if=/tmp/new of=$MNT/file bs=4k seek=100 conv=notrunc
umount $MNT

# Memory that recovery has unmapped is not touched before its poison is cleared. With the C driver, the write crashes the kernel.
if [ "$DRIVER" = rust_pmem ]; then
	read_sectors "$DISK" 2112 >/tmp/old
	provider bad "$(((1 << 20) + 32768))+4K"
	provider unmap $(((1 << 20) + 32768))
	pattern newdata 8 >/tmp/new
	check "an unmapped page" dd if=/tmp/new of="/dev/$DISK" bs=4k seek=264 oflag=direct
	is "an unmapped page: it was as before when poison was cleared" "$(provider cleared)" "$(words /tmp/old)"
	is_empty "an unmapped page: it is repaired" badblocks_of "$DISK"
fi
