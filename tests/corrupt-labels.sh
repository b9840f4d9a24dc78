#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Corrupt labels of an NVDIMM yield the recorded namespaces, and intact labels stay usable.
# compare
# vm: labels
# timeout: 300
# expect-splat: at pmem_sector_size+
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# region_state: the disks and the namespaces of the region.
region_state() {
	ndctl list -N -r "region$number" | jq -r '[.. | objects | select(has("dev")) | "\(.dev) \(.mode) \(.size) \(.blockdev // .state // "-")"] | sort | join(", ")' |
		mask_numbers
	for node in "/dev/pmem$number"*; do
		[ -b "$node" ] && echo "${node##*/}" | mask_numbers
	done
	dmesg -t | sed -n 's/.*probe with driver .* failed with error \(-[0-9]*\)$/failed with \1/p' | sort | uniq -c | tr -s ' '
	echo "."
}

# seal_labels FILE START LENGTH OFFSET: stores the right checksum (fletcher64) of this part of the file at OFFSET in it.
seal_labels() {
	# shellcheck disable=SC2016 # for perl
	perl -e 'my ($name, $start, $length, $at) = @ARGV;
		open(my $f, "+<", $name) or die "$!";
		sysseek($f, $start, 0); sysread($f, my $bytes, $length);
		substr($bytes, $at, 8) = "\0" x 8;
		my ($low, $high) = (0, 0);
		for (unpack("V*", $bytes)) { $low = ($low + $_) & 0xffffffff; $high = ($high + $low) & 0xffffffff; }
		sysseek($f, $start + $at, 0); syswrite($f, pack("VV", $low, $high));' "$@"
}

# patch_labels OFFSET HEX: changes the new label area.
patch_labels() {
	printf %s "$2" | xxd -r -p | dd of=/tmp/labels.new bs=1 seek="$1" conv=notrunc status=none
}

# test_labels NAME: writes the new label area and records the state; resets the new label area to the intact one.
test_labels() {
	ndctl disable-region "region$number" >/dev/null 2>&1
	ndctl disable-dimm "$dimm" >/dev/null 2>&1 || :
	ndctl write-labels -i /tmp/labels.new "$dimm" >/dev/null 2>&1
	ndctl enable-dimm "$dimm" >/dev/null 2>&1 || :
	dmesg -C
	ndctl enable-region "region$number" >/dev/null 2>&1 || :
	settle
	add_row "$1" "$(region_state)"
	cp /tmp/labels /tmp/labels.new
}

# test_index NAME OFFSET HEX [one]: these bytes in both index blocks, or in the first, with the right checksum.
test_index() {
	patch_labels "$2" "$3"
	seal_labels /tmp/labels.new 0 "$size" 64
	if [ "${4:-both}" = both ]; then
		patch_labels $((size + $2)) "$3"
		seal_labels /tmp/labels.new "$size" "$size" 64
	fi
	test_labels "$1"
}

# test_label NAME OFFSET HEX: these bytes in the last label, with the right checksum.
test_label() {
	patch_labels $((last + $2)) "$3"
	seal_labels /tmp/labels.new "$last" 256 248
	test_labels "$1"
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
# Labels of version 1.2 have a checksum each.
fresh_labels -V 1.2
make_namespace -r "region$number" -m raw -s 32M >/dev/null
make_namespace -r "region$number" -m fsdax -M mem -s 32M >/dev/null
ndctl disable-region "region$number" >/dev/null 2>&1
ndctl read-labels -o /tmp/labels "$dimm" >/dev/null 2>&1
cp /tmp/labels /tmp/labels.new
# struct nd_namespace_index, in drivers/nvdimm/label.h: its size is at 32, the offset of the labels at 48, the sequence
# number at 20, the version at 60, the checksum at 64, the free slots at 72.
size=$(od -An -tu8 -j 32 -N 8 /tmp/labels | tr -d ' ')
labels=$(od -An -tu8 -j 48 -N 8 /tmp/labels | tr -d ' ')
# struct nvdimm_efi_label, of 256 bytes: the last one with a raw size, which is at 112.
last=0
at=$labels
while [ "$at" -lt $((labels + 256 * 16)) ]; do
	[ "$(od -An -tu8 -j $((at + 112)) -N 8 /tmp/labels | tr -d ' ')" = 0 ] || last=$at
	at=$((at + 256))
done
add_row "where things are" "$size $labels $last"

test_labels "nothing changed"
test_index "the first index without its signature" 0 00 one
test_index "both without" 0 00
test_index "the first index of the future" 60 0900 one
test_index "both of the future" 60 0900
test_index "the sequence numbers are the same" 20 01000000
test_index "a sequence number that is none" 20 ffffffff
test_index "all slots are free" 72 ffffffff
test_index "no slots" 56 00000000
test_index "more slots than there are" 56 ffffffff
test_index "labels behind the end" 48 0000000100000000
test_index "an index that is larger" 32 0000000100000000
patch_labels 64 ffff
test_labels "the first index with a wrong checksum"
patch_labels 64 ffff
patch_labels $((size + 64)) ffff
test_labels "both with a wrong checksum"
patch_labels $((last + 248)) ffff
test_labels "a label with a wrong checksum"
test_label "a label with no uuid" 0 00000000000000000000000000000000
test_label "a label with flags" 80 ffffffff
test_label "a label of two" 84 0200
test_label "a label of position 1" 86 0100
test_label "a label with another cookie" 88 ffffffffffffffff
test_label "a label with sectors of 520 bytes" 96 0802000000000000
test_label "a label with sectors of 7 bytes" 96 0700000000000000
test_label "a label behind the end" 104 0000000000010000
test_label "a label on the first namespace" 104 0000000000000000
test_label "a label of an odd start" 104 0010000200000000
test_label "a label longer than the NVDIMM" 112 0000000001000000
test_label "a label that has shrunk" 112 0000800000000000
test_label "a label that has shrunk to a page" 112 0010000000000000
test_label "a label of no size" 112 0000000000000000
test_label "a label of an odd size" 112 0102000200000000
test_label "a label of another slot" 120 07000000
test_label "a label of another type" 128 11111111111111111111111111111111
test_label "a label of another claim" 144 11111111111111111111111111111111
test_labels "intact again"
report_rows
