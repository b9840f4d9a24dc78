#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks while namespaces are bound and unbound crash nothing, and each that comes while one is bound is listed.
#
# Memory-failure recovery may read struct pages before memremap_pages() has initialised them, or after memunmap_pages(), and
# crash, whatever the driver (patches/0009). The NVDIMM's namespace, in raw mode, has none. Those of e820 memory are zeroes
# before, which is harmless; a kernel for debugging is told not to fill them with a pattern. mce-during-bind-fsdax-and-sector has
# the other modes.
# vm: no-debug 2
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

# The first pages are reported to the MCE decode chain, the others as exceptions of the processor.
STRIDE=65536
REPORTED=150
PAGES=174

cleanup() {
	wait
	rm -f /tmp/mce_next /tmp/mce_over /tmp/mce_begin /tmp/unlisted
}

# report_pages START
report_pages() {
	mce_inject_pages "$1" $STRIDE 0 $((REPORTED - 1))
}

# raise_pages START
raise_pages() {
	mce_raise_pages_at_bind "$1" $STRIDE $REPORTED $((PAGES - 1))
}

# are_listed FIRST NEXT: the pages from FIRST on, and before NEXT, are in the disk's badblocks. Prints the others.
are_listed() {
	are_unlisted=$(unlisted_pages "/sys/block/$disk/badblocks" $STRIDE "$1" "$2") || return
	[ -z "$are_unlisted" ] || {
		echo "$are_unlisted" | xargs echo pages
		return 1
	}
}

# has_come PAGE: it was injected, or none comes any more.
has_come() {
	[ "$(mce_next)" -gt "$1" ] || [ -e /tmp/mce_over ]
}

# test_rebind NAMESPACE FIRST COMMAND: binds and unbinds the namespace for as long as the command injects machine checks, the
# first of them into this page. Those that come before a bind, or during it, are listed for an NVDIMM only: on other memory
# nobody receives them without a driver.
test_rebind() {
	provider=$(cat "$ND/$1/../../provider")
	start=$(cat "$ND/$1/resource")
	rm -f /tmp/mce_over /tmp/mce_begin
	echo "$2" >/tmp/mce_next
	{
		# The reports may all come within a second.
		wait_for 60 test -e /tmp/mce_begin
		"$3" "$start"
		touch /tmp/mce_over
	} &
	rounds=0 looked_at=0 unlisted=
	until [ -e /tmp/mce_over ]; do
		echo "$1" >"/sys/bus/nd/drivers/$DRIVER/unbind"
		echo "$1" >"/sys/bus/nd/drivers/$DRIVER/bind"
		rounds=$((rounds + 1))
		disk=$(disk_of "$1")
		first=0
		# The next page may have been injected before the bind.
		[ "$1" = "$nvdimm" ] || first=$(($(mce_next) + 1))
		: >/tmp/mce_begin
		# The time between two pages may be longer than that of a round.
		[ $((rounds % 4)) != 1 ] || wait_for 60 has_come "$first"
		next=$(mce_next)
		[ "$next" -le "$first" ] || looked_at=$((looked_at + next - first))
		[ "$1" != "$nvdimm" ] && [ "$DRIVER" = nd_pmem ] ||
			wait_for 60 are_listed "$first" "$next" >/tmp/unlisted || unlisted="$unlisted $(tail -n 1 /tmp/unlisted)"
	done
	wait
	echo "# $rounds rounds, $looked_at pages looked at"
	[ $looked_at -gt 0 ] || unlisted="$unlisted no page came while it was bound"
	check "$provider, $3: bound at the end" test -b "/dev/$disk"
	if [ "$1" != "$nvdimm" ] && [ "$DRIVER" = nd_pmem ]; then
		skip "$provider, $3: each that came while it was bound is listed" "C lists machine checks on memory of the NFIT alone"
	else
		check "$provider, $3: each that came while it was bound is listed" test -z "$unlisted"
	fi
}

plan 13
load_driver
load_mce_inject
nvdimm=$(plain_namespace)
for namespace in $nvdimm "$(e820_ns)" "$(virtio_ns)"; do
	forget_errors "$(raw_disk "$namespace")"
	test_rebind "$namespace" 0 report_pages
	test_rebind "$namespace" $REPORTED raise_pages
	[ "$namespace" != "$nvdimm" ] || check "each of those on the NVDIMM is listed" wait_for 60 are_listed 0 $PAGES
done
