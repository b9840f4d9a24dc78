#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Sectors that the bus refuses to clear, or clears only in part, stay listed, and the write fails.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 14
provide bad=1M+4K,2M+4K

provider clear_limit 0
check_fails "a write that repairs nothing" sh -c "$(command -v dd) if=/dev/zero of=/dev/$DISK bs=4k seek=256 count=1 oflag=direct"
check_fails "nor does one that has to be durable" \
	sh -c "$(command -v dd) if=/dev/zero of=/dev/$DISK bs=4k seek=256 count=1 oflag=direct,dsync conv=notrunc"
is "it is listed" "$(badblocks_of "$DISK")" "2048+8 4096+8"
check_fails "it can't be read" read_sectors "$DISK" 2048

provider clear_limit 512
check_fails "a write that repairs only a part" sh -c "$(command -v dd) if=/dev/zero of=/dev/$DISK bs=4k seek=512 count=1 oflag=direct"
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
check_fails "a write of less than what can be cleared" sh -c "$(command -v dd) if=/dev/zero of=/dev/$DISK bs=512 seek=2048 count=1 oflag=direct"
check_fails "does not repair it" read_sectors "$DISK" 2048
provider clear_unit 0
check_fails "a write where nothing can be cleared" sh -c "$(command -v dd) if=/dev/zero of=/dev/$DISK bs=4k seek=256 count=1 oflag=direct"

provider clear_unit 512
pattern aaaaaaa 8 | write_sectors "$DISK" 2048 8
pattern bbbbbbb 8 | write_sectors "$DISK" 4096 8
is_empty "a later write repairs them" badblocks_of "$DISK"
is "the first reads" "$(read_sectors "$DISK" 2048 8 | md5sum)" "$(pattern aaaaaaa 8 | md5sum)"
is "the second reads" "$(read_sectors "$DISK" 4096 8 | md5sum)" "$(pattern bbbbbbb 8 | md5sum)"
