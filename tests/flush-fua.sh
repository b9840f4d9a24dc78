#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A FUA write is followed by a flush once its data is in memory, and a failed flush fails the write.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# test_fua VALUE OF dimm: whether the region has flush hints (queue/fua) or not. O_DSYNC requests FUA and an fsync after
# a successful write.
test_fua() {
	provide "dimm=$1"
	is "dimm=$1: queue/fua" "$(cat "/sys/block/$DISK/queue/fua")" "$1"
	provider flushes 0
	pattern aaaaaaa 8 | write_sectors "$DISK" 16 8 dsync
	is "dimm=$1: a flush for FUA and one for fsync" "$(provider flushes)" 2
	provider flushes 0
	provider flush_fails 1
	provider watch 8192
	pattern bbbbbbb 8 >/tmp/data
	check_fails "dimm=$1: a flush that fails" sh -c "dd if=/tmp/data of=/dev/$DISK bs=4k seek=2 oflag=direct,dsync"
	is "dimm=$1: is the only one" "$(provider flushes)" 1
	is "dimm=$1: and saw the data" "$(provider seen)" "$(od -An -tu8 -N8 /tmp/data | tr -d ' ')"
	provider_cleanup
}

plan 10
test_fua 1
test_fua 0
