#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# At the end of a disk reads are short, writes beyond it fail with ENOSPC, and the part inside is done.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# do_io VERB OFFSET BYTES
do_io() {
	pmem-io "$1" --direct "/dev/$disk" --offset "$2" --length "$3" 2>&1
}

# check_no_space NAME OFFSET
check_no_space() {
	answer=$(do_io pwrite "$2" 512) || :
	case $answer in
	*"No space left on device"*) ok "$1" ;;
	*) is "$1" "$answer" "No space left on device" ;;
	esac
}

# test_end NAME MIB
test_end() {
	end=$(($2 << 20))
	is "$1: write of the last sector" "$(do_io pwrite $((end - 512)) 512)" 512
	is "$1: read at the end" "$(do_io pread $end 512)" 0
	is "$1: read across the end" "$(do_io pread $((end - 4096)) 8192)" 4096
	check_no_space "$1: write at the end" $end
	check_no_space "$1: write far beyond" $((end << 20))
	is "$1: write across the end" "$(do_io pwrite $((end - 4096)) 8192)" 4096
	check "$1: what was inside is there" pmem-io verify --direct "/dev/$disk" --offset $((end - 4096)) --length 4096
	check_fails "$1: zeroing across the end" fallocate -z -o $((end - 512)) -l 1024 "/dev/$disk"
	check "$1: and nothing was zeroed" pmem-io verify --direct "/dev/$disk" --offset $((end - 4096)) --length 4096
}

plan 18
load_driver
disk=$(plain_disk)
test_end "NVDIMM" 32
disk=$(labelled_disk -m fsdax -M mem -s 64M)
test_end "fsdax" 62
