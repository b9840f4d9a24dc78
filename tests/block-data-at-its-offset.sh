#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What is written at an offset is read there and nowhere else: odd multiples of 512 bytes, across pages, up to two megabytes, from
# buffers at a page's start and elsewhere.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# First sector, number of sectors, bytes of the buffer off a page's start.
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

# write_pieces DISK: to it and to the image, likewise; the data tells the places apart.
write_pieces() {
	printf '%s\n' "$pieces" | while read -r start sectors off; do
		for file in "$1" $tmp.image; do
			direct=--direct
			[ "$file" != $tmp.image ] || direct=
			pmem-io pwrite $direct --misalign "$off" --seed $((start + 100)) --offset $((start * 512)) --length $((sectors * 512)) "$file"
		done
	done
}

# read_pieces DISK: succeeds when each is the image's.
read_pieces() {
	printf '%s\n' "$pieces" | while read -r start sectors _; do
		dd if="$1" of=$tmp.read bs=$((sectors * 512)) count=1 iflag=skip_bytes,direct skip=$((start * 512)) status=none
		cmp -n $((sectors * 512)) -i 0:$((start * 512)) $tmp.read $tmp.image
	done
}

# follows NAME DISK: a copy of the disk in ordinary memory never differs from it.
follows() {
	truncate -s 2M $tmp.image
	pmem-io fill $tmp.image
	check "$1: two megabytes at once" pmem-io fill --direct --block 2M --length 2M "/dev/$2"
	check "$1: pieces are written" write_pieces "/dev/$2"
	check "$1: all is where it belongs" cmp -n 2097152 $tmp.image "/dev/$2"
	check "$1: pieces are read" read_pieces "/dev/$2"
}

# reads_back NAME DISK OFF BLOCK: the pattern into buffers off a page's start.
reads_back() {
	check "$1: blocks of $4 into buffers at $3" pmem-io verify --direct --misalign "$3" --block "$4" --length 1M "/dev/$2"
}

cleanup() {
	rm -f $tmp.*
}

plan 14
need cmp
load_driver
for disk in $(plain_disk) $(labelled_disk -m fsdax -M dev -s 64M); do
	follows "$disk" "$disk"
	pmem-io fill --direct --length 1M "/dev/$disk"
	reads_back "$disk" "$disk" 512 1M
	reads_back "$disk" "$disk" 3584 3584
	reads_back "$disk" "$disk" 1536 33280
done
