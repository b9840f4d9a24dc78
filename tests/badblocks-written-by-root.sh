#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What root writes to a disk's badblocks is accepted, merged or refused as recorded, and takes effect at once: I/O to it fails.
#
# errors/list has it, whether other errors are listed or not, and a write repairs it. Also covers long lists, and that the
# region's badblocks is a separate list.
# compare
# quick
# vm: labels
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"
. "$(dirname "$0")/lib/rows.sh"

cleanup() {
	umount $MNT 2>/dev/null
	forget_errors "${e820:-}"
	unload_driver
}

show_badblocks() {
	tr '\n' ',' <"/sys/block/$disk/badblocks"
}

# write_badblocks NAME TEXT: writes the text in one call; records the result, and the list after it.
write_badblocks() {
	answer=$(perl -e '
		open(my $f, ">", $ARGV[0]) or die "$!\n";
		my $done = syswrite($f, $ARGV[1], length $ARGV[1]);
		print defined($done) ? $done == length $ARGV[1] ? "ok" : "$done bytes" : "$!"' "/sys/block/$disk/badblocks" "$2") || :
	add_row "$name: $1" "$answer, then $(show_badblocks)"
}

# transfer NAME read|write START COUNT: transfers sectors in one bio; records the result, and the list after it.
transfer() {
	add_row "$name: $1" "$(pmem-io "p$2" --direct "/dev/$disk" --offset $(($3 * 512)) --length $(($4 * 512)) 2>&1), then $(show_badblocks)"
}

# add_rebound_row NAME: records the list after a rebind.
add_rebound_row() {
	device=$(device_of_disk "$disk")
	rebind "$device"
	add_row "$name: $1" "list: $(show_badblocks)"
	forget_errors "$disk"
}

# test_disk NAME DISK
test_disk() {
	name=$1 disk=$2
	end=$(cat "/sys/block/$disk/size")
	write_badblocks "a sector" "100 1"
	write_badblocks "the next one, with a newline" "101 1
"
	write_badblocks "those before" "92 8"
	write_badblocks "across" "90 100"
	write_badblocks "another place" "4000 8"
	write_badblocks "between" "3000 1000"
	write_badblocks "nothing" ""
	write_badblocks "a newline" "
"
	write_badblocks "no number" garbage
	write_badblocks "one number" 5
	write_badblocks "a length of 0" "5 0"
	write_badblocks "a negative sector" "-1 1"
	write_badblocks "a negative length" "5 -1"
	write_badblocks "three numbers" "6000 1 1"
	write_badblocks "text behind" "6008 1 x"
	write_badblocks "text between" "6 x 1"
	write_badblocks "hexadecimal" "0x10 1"
	write_badblocks "a tab between" "6016	1"
	write_badblocks "blanks before" "  6024 1"
	write_badblocks "the last sector" "$((end - 1)) 1"
	write_badblocks "behind the end" "$end 8"
	write_badblocks "across the end" "$((end - 4)) 8"
	write_badblocks "far behind the end" "999999999999 8"
	write_badblocks "as far as can be" "9223372036854775807 1"
	write_badblocks "farther" "99999999999999999999 1"
	write_badblocks "longer than an entry" "10000 1100"
	write_badblocks "huge text" "$(printf '7 1%08000d' 0)"
	transfer "read of a listed sector" read 100 1
	transfer "read across the start of a listed range" read 80 16
	transfer "read before" read 80 8
	transfer "read behind" read 200 8
	transfer "write of a listed page" write 96 8
	transfer "write of a part of a listed page" write 130 2
	transfer "write across the start of a listed range" write 3992 16
	transfer "write of what is not listed" write 80 8
	transfer "read of what was written" read 96 8
	add_rebound_row "bound anew"
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
	add_rebound_row "bound anew, again"
	# sysfs cannot show a list whose text is longer than a page.
	add_row "$name: longer than the list" "$(sh -c "env echo '20000 999999' >/sys/block/$disk/badblocks && echo taken" 2>&1)"
	add_row "$name: longer than the list: read there" "$(pmem-io pread --direct "/dev/$disk" --offset 15M --length 512 2>&1)"
	add_rebound_row "bound anew, at last"
}

# check_takes_effect NAME: 7 subtests.
check_takes_effect() {
	others=$(cat "$list")
	echo '4104 8' >"/sys/block/$e820/badblocks"
	is "$1: a read of it" "$(places "$e820" read --offset 2101248 --stride 0 --count 1)" 'Input/output error: 1'
	is "$1: reads beside it" "$(places "$e820" read --offset 2097152 --stride 8K --count 2)" 'ok: 2'
	is "$1: errors/list has it" "$(grep '^2101248 ' "$list")" '2101248 4096 user'
	check "$1: and so has the region's list" wait_for 60 grep -q '^4104 8$' "$ND/$namespace/../badblocks"
	rebind "$namespace"
	e820=$(disk_of "$namespace")
	is "$1: bound again, a read of it" "$(places "$e820" read --offset 2101248 --stride 0 --count 1)" 'Input/output error: 1'
	is "$1: a write repairs it" "$(places "$e820" rewrite --offset 2101248 --stride 0 --count 1)" 'ok: 1'
	is "$1: the others stay" "$(sorted_ranges "$list" | digest)" "$(printf '%s\n' "$others" | sed '/^$/d' | cut -d ' ' -f 1,2 | sort -n | digest)"
}

need perl pmem-io
case $DRIVER in
rust_pmem) plan 171 ;;
*) plan 148 ;;
esac
load_driver
test_disk "raw" "$(plain_disk)"
namespace=$(e820_ns)
e820=$(raw_disk "$namespace")
test_disk "e820" "$e820"
test_disk "fsdax" "$(labelled_disk -m fsdax -M dev -s 64M)"
region=$(labelled_region)
make_fs ext4 "$disk"
echo "60000 8" >"/sys/block/$disk/badblocks"
add_row "the region's list" "list: $(cat "$ND/$region/badblocks")"
add_result_row "the region's list, written" sh -c "env echo '8 8' >$ND/$region/badblocks"
add_row "ndctl list -M, namespace" "$(ndctl list -NM -r "$region" | jq -c '.[0] | {badblock_count, badblocks}')"
add_row "ndctl list -M, region" "$(ndctl list -RM -r "$region" | jq -c '.[0] | {badblock_count, badblocks}')"
# The DAX code of a file system asks the disk's badblocks, which root can write.
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

[ "$DRIVER" = rust_pmem ] || exit 0
namespace=$(e820_ns)
e820=$(disk_of "$namespace")
list=$(errors_list_of "$namespace")
check_takes_effect "nothing is listed"
echo 'add 0 512' >"$list"
check_takes_effect "a sector is listed"
list_every 8388608 65536 300 | edit_list add "$list"
check_takes_effect "hundreds are listed"
echo '8192 8' >"/sys/block/$e820/badblocks"
echo 'drop 4194304 4096' >"$list"
is "dropped, it is on neither list" "$(grep -c '^4194304 ' "$list") $(grep -c '^8192 ' "/sys/block/$e820/badblocks")" '0 0'
is "dropped, it can be read" "$(places "$e820" read --offset 4M --stride 0 --count 1)" 'ok: 1'
