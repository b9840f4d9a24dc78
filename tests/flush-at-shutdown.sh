#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A shutdown without any sync flushes each namespace's region once after the last write.
# compare
# vm: hotplug
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	[ "$STAGE" = 1 ] || provider_cleanup
}

# read_tally: the number of flushes that the provider has stored in the memory.
read_tally() {
	read_sectors "$DISK" 65528 | od -An -tu8 -N8 | tr -d ' '
}

case $STAGE in
1)
	plan 2
	# Its memory is the NVDIMM's, which survives the shutdown. nfit must not have it.
	remove_providers
	provide nr_regions=2 pages=1
	provider flushes 0
	provider tally $((65528 * 512))
	pattern aaaaaaa 8 | write_sectors "$DISK" 0 8
	pattern bbbbbbb 8 | write_sectors "$DISK" 8 8
	is "nothing was flushed" "$(provider flushes)" 0
	check "the memory says so" test "$(read_tally)" = 0
	host shutdown
	;;
2)
	plan 2
	provide nr_regions=2 pages=1 keep=1
	is "flushes at shutdown" "$(read_tally)" 2
	is "what was written" "$(read_sectors "$DISK" 0 16 | md5sum)" "$({
		pattern aaaaaaa 8
		pattern bbbbbbb 8
	} | md5sum)"
	;;
esac
