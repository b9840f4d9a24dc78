#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The machine is shut down with no more than that: the driver has flushed the region after the last write, once for each namespace.
# compare
# vm: --bare --nvdimm size=64M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# The provider has the memory of the NVDIMM, which outlasts the machine; nobody else takes it.
load_providers() {
	:
}
start=$(($(host hmp 'info memory-devices' | tr -d '
' | sed -n 's/^ *addr: //p')))
cleanup() {
	[ "$STAGE" = 1 ] || provider_cleanup
}

# tally: the number of flushes that is left in the memory.
tally() {
	read_sectors "$DISK" 65528 | od -An -tu8 -N8 | tr -d ' '
}

case $STAGE in
1)
	plan 2
	provide start="$start" nr_regions=2 pages=1
	provider flushes 0
	provider tally $((65528 * 512))
	pattern aaaaaaa 8 | write_sectors "$DISK" 0 8
	pattern bbbbbbb 8 | write_sectors "$DISK" 8 8
	is "nothing was flushed" "$(provider flushes)" 0
	check "the memory says so" test "$(tally)" = 0
	host shutdown
	;;
2)
	plan 2
	provide start="$start" nr_regions=2 pages=1 keep=1
	is "flushes at shutdown" "$(tally)" 2
	is "what was written" "$(read_sectors "$DISK" 0 16 | md5sum)" "$({
		pattern aaaaaaa 8
		pattern bbbbbbb 8
	} | md5sum)"
	;;
esac
