#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A write over bad blocks clears the poison with the clear-error command and removes it from all lists.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

plan 14
provide bad=1M+512,2M+4K,3M+16K,5M+512 clear_wipes=1
region=${NAMESPACE#namespace}
region=region${region%.*}

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
