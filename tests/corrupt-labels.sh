#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Damaged labels of an NVDIMM: what becomes of its namespaces; and those that are intact go on.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# timeout: 300
# expect-splat: pmem_sector_size
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# state: the disks of the region, and what its namespaces are.
state() {
	ndctl list -N -r "region$number" | jq -r '[.. | objects | select(has("dev")) | "\(.dev) \(.mode) \(.size) \(.blockdev // .state // "-")"] | sort | join(", ")' |
		mask_numbers
	for node in "/dev/pmem$number"*; do
		[ -b "$node" ] && echo "${node##*/}" | mask_numbers
	done
	dmesg -t | sed -n 's/.*probe with driver .* failed with error \(-[0-9]*\)$/failed with \1/p' | sort | uniq -c | tr -s ' '
	echo "."
}

# seal FILE START LENGTH OFFSET: puts the right checksum (fletcher64) of that piece of the file at that offset in it.
seal() {
	# shellcheck disable=SC2016 # for perl
	perl -e 'my ($name, $start, $length, $at) = @ARGV;
		open(my $f, "+<", $name) or die "$!";
		sysseek($f, $start, 0); sysread($f, my $bytes, $length);
		substr($bytes, $at, 8) = "\0" x 8;
		my ($low, $high) = (0, 0);
		for (unpack("V*", $bytes)) { $low = ($low + $_) & 0xffffffff; $high = ($high + $low) & 0xffffffff; }
		sysseek($f, $start + $at, 0); syswrite($f, pack("VV", $low, $high));' "$@"
}

# put OFFSET HEX: into the label area to be.
put() {
	printf %s "$2" | xxd -r -p | dd of=/tmp/labels.new bs=1 seek="$1" conv=notrunc status=none
}

# becomes NAME: the state with that label area; the next one begins as the intact one.
becomes() {
	ndctl disable-region "region$number" >/dev/null 2>&1
	ndctl disable-dimm "$dimm" >/dev/null 2>&1 || :
	ndctl write-labels -i /tmp/labels.new "$dimm" >/dev/null 2>&1
	ndctl enable-dimm "$dimm" >/dev/null 2>&1 || :
	dmesg -C
	ndctl enable-region "region$number" >/dev/null 2>&1 || :
	settle
	add_row "$1" "$(state)"
	cp /tmp/labels /tmp/labels.new
}

# index_with NAME OFFSET HEX [one]: these bytes in both indexes, or the first one, and the right checksum.
index_with() {
	put "$2" "$3"
	seal /tmp/labels.new 0 "$size" 64
	if [ "${4:-both}" = both ]; then
		put $((size + $2)) "$3"
		seal /tmp/labels.new "$size" "$size" 64
	fi
	becomes "$1"
}

# label_with NAME OFFSET HEX: the last label with these bytes and the right checksum.
label_with() {
	put $((last + $2)) "$3"
	seal /tmp/labels.new "$last" 256 248
	becomes "$1"
}

cleanup() {
	fresh_labels
	rm -f /tmp/label*
}

need xxd perl
load_driver
number=$(labelled_region)
number=${number#region}
IFS=, read -r dimm _ <"$ND/region$number/mapping0"
ndctl disable-region all >/dev/null 2>&1
# Labels of version 1.2 have a checksum each.
ndctl init-labels -f -V 1.2 all >/dev/null 2>&1
ndctl enable-region all >/dev/null 2>&1
settle
make_namespace -r "region$number" -m raw -s 32M >/dev/null
make_namespace -r "region$number" -m fsdax -M mem -s 32M >/dev/null
ndctl disable-region "region$number" >/dev/null 2>&1
ndctl read-labels -o /tmp/labels "$dimm" >/dev/null 2>&1
cp /tmp/labels /tmp/labels.new
# struct nd_namespace_index, in drivers/nvdimm/label.h: the size of each of the two at 32, where the labels begin at 48, the
# sequence number at 20, the version at 60, the checksum at 64, the slots that are free at 72.
size=$(od -An -tu8 -j 32 -N 8 /tmp/labels | tr -d ' ')
labels=$(od -An -tu8 -j 48 -N 8 /tmp/labels | tr -d ' ')
# struct nvdimm_efi_label, of 256 bytes: the last one that has a raw size, at 112.
last=0
at=$labels
while [ "$at" -lt $((labels + 256 * 16)) ]; do
	[ "$(od -An -tu8 -j $((at + 112)) -N 8 /tmp/labels | tr -d ' ')" = 0 ] || last=$at
	at=$((at + 256))
done
add_row "where things are" "$size $labels $last"

becomes "nothing changed"
index_with "the first index without its signature" 0 00 one
index_with "both without" 0 00
index_with "the first index of the future" 60 0900 one
index_with "both of the future" 60 0900
index_with "the sequence numbers are the same" 20 01000000
index_with "a sequence number that is none" 20 ffffffff
index_with "all slots are free" 72 ffffffff
index_with "no slots" 56 00000000
index_with "more slots than there are" 56 ffffffff
index_with "labels behind the end" 48 0000000100000000
index_with "an index that is larger" 32 0000000100000000
put 64 ffff
becomes "the first index with a wrong checksum"
put 64 ffff
put $((size + 64)) ffff
becomes "both with a wrong checksum"
put $((last + 248)) ffff
becomes "a label with a wrong checksum"
label_with "a label with no uuid" 0 00000000000000000000000000000000
label_with "a label with flags" 80 ffffffff
label_with "a label of two" 84 0200
label_with "a label of position 1" 86 0100
label_with "a label with another cookie" 88 ffffffffffffffff
label_with "a label with sectors of 520 bytes" 96 0802000000000000
label_with "a label with sectors of 7 bytes" 96 0700000000000000
label_with "a label behind the end" 104 0000000000010000
label_with "a label on the first namespace" 104 0000000000000000
label_with "a label of an odd start" 104 0010000200000000
label_with "a label longer than the NVDIMM" 112 0000000001000000
label_with "a label that has shrunk" 112 0000800000000000
label_with "a label that has shrunk to a page" 112 0010000000000000
label_with "a label of no size" 112 0000000000000000
label_with "a label of an odd size" 112 0102000200000000
label_with "a label of another slot" 120 07000000
label_with "a label of another type" 128 11111111111111111111111111111111
label_with "a label of another claim" 144 11111111111111111111111111111111
becomes "intact again"
report_rows
