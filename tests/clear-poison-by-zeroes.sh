#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Zeroing repairs bad blocks: blkdiscard -z of the disk, and reuse of a punched-out block of a file.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

need pmem-io
plan 7
provide bad=32M+16K
blkdiscard -f -z -o 32M -l 8K "/dev/$DISK"
is "BLKZEROOUT of a half" "$(badblocks_of "$DISK")" "65552+16"
fallocate -z -o $((32 << 20)) -l 1M "/dev/$DISK"
is_empty "fallocate of all" badblocks_of "$DISK"
is "it is zero" "$(read_sectors "$DISK" 65536 32 | md5sum)" "$(head -c 16384 /dev/zero | md5sum)"

mkfs.ext4 -q -b 4096 "/dev/$DISK"
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
