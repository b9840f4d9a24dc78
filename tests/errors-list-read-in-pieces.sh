#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The list of errors is read in pieces without lines of an earlier list.
# quick
# vm: provider 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"
. "$(dirname "$0")/lib/provider.sh"

# read_list SIZE: reads the list in pieces of so many bytes, up to its end.
read_list() {
	dd if="$LIST" bs="$1" status=none
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
plan 7
provide size=$((8 << 20)) pages=1
LIST=$ND/$NAMESPACE/errors/list
BOTH="65536 4096 user
73728 4096 user"
echo "add 65536 4096" >"$LIST"
echo "add 73728 4096" >"$LIST"
for size in 1 7 16 32; do
	is "two lines, $size bytes at a time" "$(read_list $size)" "$BOTH"
done
# The last piece was full, and ended in the second line.
# shellcheck disable=SC2016 # for perl
is "read again by the same open file: one line instead of them" "$(perl -e '
	sub text { my $text = ""; 1 while sysread $_[0], $text, 32, length $text; $text }
	open my $list, "<", $ARGV[0] or die $!;
	text $list;
	open my $edit, ">", $ARGV[0] or die $!;
	syswrite $edit, "add 69632 4096\n" or die $!;
	sysseek $list, 0, 0;
	print text $list;
' "$LIST")" "65536 12288 user"
echo "drop 0 $((8 << 20))" >"$LIST"
echo "add 65536 4096" >"$LIST"
echo "add 73728 4096" >"$LIST"
# shellcheck disable=SC2016 # for perl
is "a line that changes in the middle of a read is not mixed of both" "$(perl -e '
	open my $list, "<", $ARGV[0] or die $!;
	sysread $list, my $text, 24;
	open my $edit, ">", $ARGV[0] or die $!;
	syswrite $edit, "add 77824 4096\n" or die $!;
	1 while sysread $list, $text, 24, length $text;
	print $text;
' "$LIST")" "65536 4096 user
73728 8192 user"
echo "drop 0 $((8 << 20))" >"$LIST"
list_every 0 1024 8000 512 | tee /tmp/added | edit_list add "$LIST"
for size in 100 4096; do
	for _ in $(seq 10); do
		read_list $size | md5sum
	done >/tmp/read.$size &
done
wait
is "8000 lines, by two readers at once, in pieces of different sizes" "$(sort -u /tmp/read.100 /tmp/read.4096)" "$(sed 's/$/ user/' /tmp/added | md5sum)"
