#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Thousands of random requests, many at once by io_uring, match a model: vectors, registered buffers, zeroing, flags, bad pages, the end.
# vm: labels-virtio
# timeout: 600
. "$(dirname "$0")/lib/test.sh"

# check_requests NAME ARGUMENTS OF pmem-io requests…
check_requests() {
	requests_name=$1
	shift
	# shellcheck disable=SC2016 # for sh
	check "$requests_name" sh -c 'pmem-io requests "$@" >/tmp/requests' requests "$@"
	sed 's/^/# /' /tmp/requests
}

plan 7
load_driver
check_requests "raw" --seed 11 "/dev/$(plain_disk)"
check_requests "e820" --seed 12 "/dev/$(e820_disk)"
check_requests "e820, with bad pages" --seed 13 --bad "/dev/$(e820_disk)"
check_requests "fsdax" --seed 14 "/dev/$(labelled_disk -m fsdax -M mem -s 64M)"
check_requests "sectors of 4096 bytes" --seed 15 "/dev/$(labelled_disk -m raw -l 4096 -s 64M)"
# With larger sectors nd_btt refuses a buffer of a vector that has only a part of one.
check_requests "sector mode" --seed 17 "/dev/$(labelled_disk -m sector -l 512 -s 64M)"
check_requests "virtio-pmem, with bad pages" --seed 18 --bad "/dev/$(disk_of "$(virtio_ns)")"
forget_errors "$(e820_disk)"
forget_errors "$(disk_of "$(virtio_ns)")"
