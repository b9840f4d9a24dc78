#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The disk's badblocks, written by hand: what is taken, merged and refused, long lists, what I/O to listed sectors gives, and that the
# region's list is another one.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

held() {
	tr '\n' ',' <"/sys/block/$disk/badblocks"
}

# put NAME TEXT: written in one go; the answer, and the list then.
put() {
	answer=$(perl -e '
		open(my $f, ">", $ARGV[0]) or die "$!\n";
		my $done = syswrite($f, $ARGV[1], length $ARGV[1]);
		print defined($done) ? $done == length $ARGV[1] ? "ok" : "$done bytes" : "$!"' "/sys/block/$disk/badblocks" "$2") || :
	add_row "$name: $1" "$answer, then $(held)"
}

# transfer NAME read|write START COUNT: in one bio; the answer, and the list then.
transfer() {
	add_row "$name: $1" "$(pmem-io "p$2" --direct "/dev/$disk" --offset $(($3 * 512)) --length $(($4 * 512)) 2>&1), then $(held)"
}

# bound NAME: the list after the driver has found the namespace anew.
bound() {
	device=$(device_of_disk "$disk")
	rebind "$device"
	add_row "$name: $1" "list: $(held)"
	forget_errors "$disk"
}

# of NAME DISK
of() {
	name=$1 disk=$2
	end=$(cat "/sys/block/$disk/size")
	put "a sector" "100 1"
	put "the next one, with a newline" "101 1
"
	put "those before" "92 8"
	put "across" "90 100"
	put "another place" "4000 8"
	put "between" "3000 1000"
	put "nothing" ""
	put "a newline" "
"
	put "no number" garbage
	put "one number" 5
	put "a length of 0" "5 0"
	put "a negative sector" "-1 1"
	put "a negative length" "5 -1"
	put "three numbers" "6000 1 1"
	put "text behind" "6008 1 x"
	put "text between" "6 x 1"
	put "hexadecimal" "0x10 1"
	put "a tab between" "6016	1"
	put "blanks before" "  6024 1"
	put "the last sector" "$((end - 1)) 1"
	put "behind the end" "$end 8"
	put "across the end" "$((end - 4)) 8"
	put "far behind the end" "999999999999 8"
	put "as far as can be" "9223372036854775807 1"
	put "farther" "99999999999999999999 1"
	put "longer than an entry" "10000 1100"
	put "huge text" "$(printf '7 1%08000d' 0)"
	transfer "read of a listed sector" read 100 1
	transfer "read across the start of a listed range" read 80 16
	transfer "read before" read 80 8
	transfer "read behind" read 200 8
	transfer "write of a listed page" write 96 8
	transfer "write of a part of a listed page" write 130 2
	transfer "write across the start of a listed range" write 3992 16
	transfer "write of what is not listed" write 80 8
	transfer "read of what was written" read 96 8
	bound "bound anew"
	perl -e 'for (0 .. 299) { open(my $f, ">", $ARGV[0]); syswrite($f, sprintf("%d 1", 1000 + 16 * $_)) or die "$_: $!\n" }' \
		"/sys/block/$disk/badblocks"
	add_row "$name: 300 entries: lines" "$(wc -l <"/sys/block/$disk/badblocks")"
	add_row "$name: 300 entries: their sum" "$(md5sum <"/sys/block/$disk/badblocks")"
	perl -e 'for (300 .. 511) { open(my $f, ">", $ARGV[0]); syswrite($f, sprintf("%d 1", 1000 + 16 * $_)) or die "$_: $!\n" }' \
		"/sys/block/$disk/badblocks"
	add_row "$name: full: one more" "$(sh -c "env echo '60000 1' >/sys/block/$disk/badblocks" 2>&1)"
	add_row "$name: full: one that joins" "$(sh -c "env echo '1001 1' >/sys/block/$disk/badblocks && echo taken" 2>&1)"
	add_row "$name: full: read of the last entry" "$(pmem-io pread --direct "/dev/$disk" --offset $(((1000 + 16 * 511) * 512)) --length 512 2>&1)"
	add_row "$name: full: read between" "$(pmem-io pread --direct "/dev/$disk" --offset $(((1004 + 16 * 300) * 512)) --length 512 2>&1)"
	bound "bound anew, again"
	# A list whose text is longer than a page is more than the kernel's sysfs can show.
	add_row "$name: longer than the list" "$(sh -c "env echo '20000 999999' >/sys/block/$disk/badblocks && echo taken" 2>&1)"
	add_row "$name: longer than the list: read there" "$(pmem-io pread --direct "/dev/$disk" --offset 15M --length 512 2>&1)"
	bound "bound anew, at last"
}

need perl
load_driver
of "raw" "$(plain_disk)"
of "e820" "$(e820_disk)"
of "fsdax" "$(labelled_disk -m fsdax -M dev -s 64M)"
region=$(labelled_region)
make_fs ext4 "$disk"
echo "60000 8" >"/sys/block/$disk/badblocks"
add_row "the region's list" "list: $(cat "$ND/$region/badblocks")"
add_result_row "the region's list, written" sh -c "env echo '8 8' >$ND/$region/badblocks"
add_row "ndctl list -M, namespace" "$(ndctl list -NM -r "$region" | jq -c '.[0] | {badblock_count, badblocks}')"
add_row "ndctl list -M, region" "$(ndctl list -RM -r "$region" | jq -c '.[0] | {badblock_count, badblocks}')"
# Written by hand, it is the disk's: a file system's DAX asks there.
mount_dax "$disk"
truncate -s 1M $MNT/file
pmem-io fill $MNT/file
first=$(sector_of $MNT/file)
echo "$((first + 40)) 1" >"/sys/block/$disk/badblocks"
add_row "fsdax: read of a file up to a listed page" "$(pmem-io pread $MNT/file --offset 0 --length 20480 2>&1)"
add_row "fsdax: read from a listed page on" "$(pmem-io pread $MNT/file --offset 20480 --length 4096 2>&1)"
add_row "fsdax: touch of a listed page" "$(pmem-io map-read $MNT/file --offset 20480 --length 8192 2>&1)"
umount $MNT
forget_errors "$disk"
report_rows
