#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Odd reads and writes return the recorded results and change nothing that they should not.
#
# Unaligned, empty, many segments, huge, at and beyond the end, from unmapped memory.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# strip_timing: removes the byte count and the speed that xfs_io prints for a pwrite.
strip_timing() {
	grep -v '^[0-9. ]* .*ops;' | sed 's/ at offset.*//' | paste -sd ,
}

# record_io NAME COMMAND OF xfs_io…: with O_DIRECT, and through the page cache.
record_io() {
	add_row "$name: $1, direct" "$(xfs_io -d -c "$2" "/dev/$disk" 2>&1 | strip_timing)"
	add_row "$name: $1, buffered" "$(xfs_io -c "$2" "/dev/$disk" 2>&1 | strip_timing)"
}

test_disk() {
	name=$1 disk=$2
	end=$(blockdev --getsize64 "/dev/$disk")
	pmem-io fill --direct --length 4M "/dev/$disk"
	for verb in pread pwrite; do
		record_io "$verb of nothing" "$verb 0 0"
		record_io "$verb of nothing at the end" "$verb $end 0"
		record_io "$verb of 1 byte" "$verb 5M 1"
		record_io "$verb of 511 bytes" "$verb 5M 511"
		record_io "$verb at byte 1" "$verb 5242881 512"
		record_io "$verb at byte 256" "$verb 5243136 4096"
		record_io "$verb at the end" "$verb $end 4096"
		record_io "$verb across the end" "$verb -b 64K $((end - 4096)) 64K"
		record_io "$verb far behind the end" "$verb 1000000000000000 4096"
		record_io "$verb as far as can be" "$verb 9223372036854771712 4096"
		record_io "$verb at a negative offset" "$verb -- -4096 4096"
		record_io "$verb of 16 pieces" "$verb -V 16 -b 4096 5M 64K"
		record_io "$verb of 1024 pieces" "$verb -V 1024 -b 512 5M 512K"
		record_io "$verb of 1025 pieces" "$verb -V 1025 -b 512 5M 512K"
		record_io "$verb of 100 pieces of 100 bytes" "$verb -V 100 -b 100 5M 10000"
		record_io "$verb of 16M at once" "$verb -b 16M 5M 16M"
		[ $verb = pread ] || record_io "$verb with NOWAIT" "$verb -N -V 1 -b 4096 5M 4096"
	done
	add_row "$name: a file for reading alone" "$(xfs_io -r -d -c 'pwrite 0 4096' "/dev/$disk" 2>&1 | strip_timing)"
	# shellcheck disable=SC2016 # for perl
	add_row "$name: memory that is not there" "$(perl -e '
		use Fcntl;
		sysopen(my $f, $ARGV[0], O_RDWR | O_DIRECT) or die $!;
		my $fd = fileno($f);
		for (["read", 0], ["pread64", 17], ["write", 1], ["pwrite64", 18]) {
			my $answer = syscall($_->[1], $fd, 8, 4096, 5 << 20);
			printf "%s %s, ", $_->[0], $answer < 0 ? "$!" : $answer;
		}
		# A page of code can be the source of a write, not the target of a read.
		open(my $maps, "<", "/proc/self/maps");
		my ($code) = map { /^([0-9a-f]+)-.* r-xp / ? hex $1 : () } <$maps>;
		for (["read into code", 17], ["write of code", 18]) {
			my $answer = syscall($_->[1], $fd, $code, 4096, 5 << 20);
			printf "%s %s, ", $_->[0], $answer < 0 ? "$!" : $answer;
		}
		my $answer = syscall(17, $fd, 8, 0, 0);
		printf "nothing, nowhere %s", $answer < 0 ? "$!" : $answer;' "/dev/$disk" 2>&1)"
	add_row "$name: opened with O_EXCL twice" "$(perl -e '
		use Fcntl;
		sysopen(my $f, $ARGV[0], O_RDWR | O_EXCL) or die "$!\n";
		sysopen(my $g, $ARGV[0], O_RDWR | O_EXCL) or die "$!\n";
		print "both"' "/dev/$disk" 2>&1)"
	add_row "$name: the first 4M" "$(pmem-io verify --direct --length 4M "/dev/$disk") as written"
	add_row "$name: 3 and 3 pages in one bio across a bad one" "$(echo "16408 8" >"/sys/block/$disk/badblocks"; pmem-io pread --direct "/dev/$disk" --offset 8M --length 28672 2>&1)"
	forget_errors "$disk"
}

need xfs_io perl
load_driver
test_disk "raw" "$(plain_disk)"
test_disk "fsdax" "$(labelled_disk -m fsdax -M mem -s 64M)"
test_disk "4096" "$(labelled_disk -m raw -l 4096 -s 64M)"
report_rows
