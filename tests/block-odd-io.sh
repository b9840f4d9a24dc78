#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Odd reads and writes return the recorded results and change nothing that they should not.
#
# Unaligned, empty, many segments, huge, at and beyond the end, from unmapped memory. Direct I/O that is not a multiple of a sector
# fails with EINVAL. At the end of a disk reads are short, writes beyond it fail with ENOSPC, and the part inside is done.
# compare
# vm: labels
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# The numbers of read(2), write(2), pread64(2) and pwrite64(2).
case $(uname -m) in
x86_64) calls="0 1 17 18" ;;
*) calls="63 64 67 68" ;;
esac

# strip_timing TEXT: without the offset, and the line with the byte count and the speed, that xfs_io prints for a transfer. Without
# processes, which take longer than the I/O.
strip_timing() {
	stripped=
	stripped_rest=$1$TAP_NEWLINE
	while [ -n "$stripped_rest" ]; do
		stripped_line=${stripped_rest%%"$TAP_NEWLINE"*}
		stripped_rest=${stripped_rest#*"$TAP_NEWLINE"}
		case $stripped_line in
		[0-9]*" "*"ops;"*) ;;
		*) stripped=$stripped,${stripped_line%%" at offset"*} ;;
		esac
	done
	printf '%s\n' "${stripped#,}"
}

# record_io NAME COMMAND OF xfs_io…: with O_DIRECT, and through the page cache.
record_io() {
	add_row "$name: $1, direct" "$(strip_timing "$(xfs_io -d -c "$2" "/dev/$disk" 2>&1)")"
	add_row "$name: $1, buffered" "$(strip_timing "$(xfs_io -c "$2" "/dev/$disk" 2>&1)")"
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
	add_row "$name: a file for reading alone" "$(strip_timing "$(xfs_io -r -d -c 'pwrite 0 4096' "/dev/$disk" 2>&1)")"
	# shellcheck disable=SC2016,SC2086 # for perl; words
	add_row "$name: memory that is not there" "$(perl -e '
		use Fcntl;
		sysopen(my $f, $ARGV[0], O_RDWR | O_DIRECT) or die $!;
		my $fd = fileno($f);
		my ($read, $write, $pread, $pwrite) = map int, @ARGV[1 .. 4];
		for (["read", $read], ["pread64", $pread], ["write", $write], ["pwrite64", $pwrite]) {
			my $answer = syscall $_->[1], $fd, 8, 4096, 5 << 20;
			printf "%s %s, ", $_->[0], $answer < 0 ? "$!" : $answer;
		}
		# A page of code can be the source of a write, not the target of a read.
		open(my $maps, "<", "/proc/self/maps");
		my ($code) = map { /^([0-9a-f]+)-.* r-xp / ? hex $1 : () } <$maps>;
		for (["read into code", $pread], ["write of code", $pwrite]) {
			my $answer = syscall $_->[1], $fd, $code, 4096, 5 << 20;
			printf "%s %s, ", $_->[0], $answer < 0 ? "$!" : $answer;
		}
		my $answer = syscall $pread, $fd, 8, 0, 0;
		printf "nothing, nowhere %s", $answer < 0 ? "$!" : $answer;' "/dev/$disk" $calls 2>&1)"
	add_row "$name: opened with O_EXCL twice" "$(perl -e '
		use Fcntl;
		sysopen(my $f, $ARGV[0], O_RDWR | O_EXCL) or die "$!\n";
		sysopen(my $g, $ARGV[0], O_RDWR | O_EXCL) or die "$!\n";
		print "both"' "/dev/$disk" 2>&1)"
	add_row "$name: the first 4M" "$(pmem-io verify --direct --length 4M "/dev/$disk") as written"
	add_row "$name: 3 and 3 pages in one bio across a bad one" "$(echo "16408 8" >"/sys/block/$disk/badblocks"; pmem-io pread --direct "/dev/$disk" --offset 8M --length 28672 2>&1)"
	forget_errors "$disk"
}

# ---- at the end ----

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

# test_end NAME MIB: 9 subtests.
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

# ---- not whole sectors ----

# check_refused NAME VERB OFFSET BYTES [OPTION…]
check_refused() {
	refused_name=$1 verb=$2 offset=$3 bytes=$4
	shift 4
	answer=$(pmem-io "$verb" --direct "/dev/$disk" --offset "$offset" --length "$bytes" "$@" 2>&1) || :
	case $answer in
	*"Invalid argument"*) ok "$refused_name" ;;
	*) is "$refused_name" "$answer" "Invalid argument" ;;
	esac
}

# test_unaligned: 10 subtests, on a disk whose first 4M are as pmem-io fills them.
test_unaligned() {
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
}

need xfs_io perl
plan 241
load_driver
test_disk "raw" "$(plain_disk)"
test_unaligned
test_end "NVDIMM" 32
test_disk "fsdax" "$(labelled_disk -m fsdax -M mem -s 64M)"
test_end "fsdax" 62
test_disk "4096" "$(labelled_disk -m raw -l 4096 -s 64M)"
report_rows
