#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Direct I/O that is not a multiple of a sector fails with EINVAL and changes nothing; empty I/O succeeds.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# check_refused NAME VERB OFFSET BYTES [OPTION…]
check_refused() {
	name=$1 verb=$2 offset=$3 bytes=$4
	shift 4
	answer=$(pmem-io "$verb" --direct "/dev/$disk" --offset "$offset" --length "$bytes" "$@" 2>&1) || :
	case $answer in
	*"Invalid argument"*) ok "$name" ;;
	*) is "$name" "$answer" "Invalid argument" ;;
	esac
}

plan 10
load_driver
disk=$(plain_disk)
pmem-io fill --direct --length 1M "/dev/$disk"
check_refused "write of 511 bytes" pwrite 0 511 --seed 2
check_refused "write of 513 bytes" pwrite 0 513 --seed 2
check_refused "write at byte 1" pwrite 1 512 --seed 2
check_refused "write at byte 256" pwrite 256 4096 --seed 2
check_refused "read of 100 bytes" pread 0 100
check_refused "read at byte 511" pread 511 512
check_refused "write from a buffer at byte 100" pwrite 0 512 --seed 2 --misalign 100
check "nothing has changed" pmem-io verify --direct --length 1M "/dev/$disk"
# shellcheck disable=SC2016 # for perl
check "read and write of no bytes" perl -e '
	use Fcntl;
	sysopen(my $f, $ARGV[0], O_RDWR | O_DIRECT) or die $!;
	for my $place (0, sysseek($f, 0, 2)) {
		my $bytes = "";
		sysseek($f, $place, 0);
		defined(my $written = syswrite($f, $bytes, 0)) or die "write at $place: $!";
		defined(my $read = sysread($f, $bytes, 0)) or die "read at $place: $!";
		die "$written, $read" if $written || $read;
	}' "/dev/$disk"
check "nothing has changed, still" pmem-io verify --direct --length 1M "/dev/$disk"
