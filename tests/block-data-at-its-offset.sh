#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Data is stored at its offset and nowhere else, for odd sectors, up to 2 MiB, from unaligned buffers.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

# First sector, number of sectors, offset of the buffer in its page.
pieces='0 1 0
1 1 512
7 1 3584
8 1 0
9 15 512
7 2 0
15 18 2048
100 8 0
201 127 1024
511 3 3584
1023 513 512
1536 2048 0
3585 511 2560
4095 1 0'
tmp=/tmp/block-data-at-its-offset

# write_pieces DISK: writes each piece to the disk and to the image; the data depends on the place.
write_pieces() {
	printf '%s\n' "$pieces" | while read -r start sectors off; do
		for file in "$1" $tmp.image; do
			direct=--direct
			[ "$file" != $tmp.image ] || direct=
			pmem-io pwrite $direct --misalign "$off" --seed $((start + 100)) --offset $((start * 512)) --length $((sectors * 512)) "$file"
		done
	done
}

# read_pieces DISK: each piece of the disk is equal to that of the image.
read_pieces() {
	printf '%s\n' "$pieces" | while read -r start sectors _; do
		dd if="$1" of=$tmp.read bs=$((sectors * 512)) count=1 iflag=skip_bytes,direct skip=$((start * 512)) status=none
		cmp -n $((sectors * 512)) -i 0:$((start * 512)) $tmp.read $tmp.image
	done
}

# test_copy NAME DISK: the disk stays equal to an image in RAM.
test_copy() {
	truncate -s 2M $tmp.image
	pmem-io fill $tmp.image
	check "$1: two megabytes at once" pmem-io fill --direct --block 2M --length 2M "/dev/$2"
	check "$1: pieces are written" write_pieces "/dev/$2"
	check "$1: all is where it belongs" cmp -n 2097152 $tmp.image "/dev/$2"
	check "$1: pieces are read" read_pieces "/dev/$2"
}

# verify_unaligned NAME DISK OFFSET BLOCK: reads the pattern into buffers at OFFSET of a page.
verify_unaligned() {
	check "$1: blocks of $4 into buffers at $3" pmem-io verify --direct --misalign "$3" --block "$4" --length 1M "/dev/$2"
}

cleanup() {
	rm -f $tmp.*
}

plan 14
need cmp
load_driver
for disk in $(plain_disk) $(labelled_disk -m fsdax -M dev -s 64M); do
	test_copy "$disk" "$disk"
	pmem-io fill --direct --length 1M "/dev/$disk"
	verify_unaligned "$disk" "$disk" 512 1M
	verify_unaligned "$disk" "$disk" 3584 3584
	verify_unaligned "$disk" "$disk" 1536 33280
done
