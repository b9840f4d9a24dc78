#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A read of a bad sector fails; reads of its neighbours succeed, however bios are cut.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 8
provide pages=1
pattern neigh_1 1 | write_sectors "$DISK" 2047 1
pattern neigh_2 8 | write_sectors "$DISK" 2049 8
provider bad 1M+512

check_fails "the sector" read_sectors "$DISK" 2048
check_fails "the page that it is in" read_sectors "$DISK" 2048 8
check_fails "a megabyte that ends with it" read_sectors "$DISK" 1 2048
check_fails "a megabyte that begins with it" read_sectors "$DISK" 2048 2048
is "the sector before" "$(read_sectors "$DISK" 2047 | md5sum)" "$(pattern neigh_1 1 | md5sum)"
is "the sectors behind" "$(read_sectors "$DISK" 2049 8 | md5sum)" "$(pattern neigh_2 8 | md5sum)"
check "a megabyte before" read_sectors "$DISK" 0 2048
is "and nothing was repaired by that" "$(badblocks_of "$DISK")" "2048+1"
