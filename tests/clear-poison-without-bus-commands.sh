#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On a bus without commands, a write removes errors from the disk's list, and the data can be read back.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 4
provide commands=0 bad=1M+4K
is "listed" "$(badblocks_of "$DISK")" "2048+8"
check_fails "can't be read" read_sectors "$DISK" 2048 8
pattern aaaaaaa 8 | write_sectors "$DISK" 2048 8
is_empty "no more" badblocks_of "$DISK"
is "reads" "$(read_sectors "$DISK" 2048 8 | md5sum)" "$(pattern aaaaaaa 8 | md5sum)"
