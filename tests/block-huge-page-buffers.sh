#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Direct I/O with huge-page buffers, whose bio segments are longer than a page, keeps the data intact.
# kernel: transparent_hugepage
# vm: labels
. "$(dirname "$0")/lib/test.sh"

fio_verify_buffers() {
	name=$1
	shift
	check "$name" fio --name=job --filename="/dev/$disk" --direct=1 --mem=shmhuge --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal "$@"
}

cleanup() {
	echo 0 >/proc/sys/vm/nr_hugepages
}

plan 3
need fio
load_driver
disk=$(plain_disk)
echo 8 >/proc/sys/vm/nr_hugepages
check "the machine has huge pages" test "$(cat /proc/sys/vm/nr_hugepages)" -ge 4
fio_verify_buffers "a megabyte at a time" --size=8M --rw=write --bs=1M --verify_interval=4096
fio_verify_buffers "odd sizes" --size=4M --rw=randwrite --bsrange=512-256k --blockalign=512
