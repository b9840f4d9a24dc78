#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks while namespaces are bound and unbound crash nothing, and those on an NVDIMM are all listed.
#
# The namespaces are in raw mode. With struct pages, memory-failure recovery may read them before memremap_pages() has
# initialised them, or after memunmap_pages(), and crash, whatever the driver (patches/0009).
# vm: --bare --e820 32M@512M --nvdimm size=48M --cpus 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

# The first pages are reported to the MCE decode chain, the others as exceptions of the processor.
STRIDE=65536
REPORTED=300
PAGES=348

cleanup() {
	unload_driver
}

# report_pages START
report_pages() {
	mce_inject_pages "$1" $STRIDE 0 $((REPORTED - 1))
}

# raise_pages START
raise_pages() {
	page=$REPORTED
	while [ $page -lt $PAGES ]; do
		host mce $(($1 + page * STRIDE))
		page=$((page + 1))
	done
}

# test_rebind NAME NAMESPACE COMMAND: binds and unbinds the namespace for as long as the command injects machine checks.
test_rebind() {
	start=$(cat "$ND/$2/resource")
	rm -f /tmp/mce_over
	{
		"$3" "$start"
		touch /tmp/mce_over
	} &
	rounds=0
	until [ -e /tmp/mce_over ]; do
		echo "$2" >"/sys/bus/nd/drivers/$DRIVER/unbind"
		echo "$2" >"/sys/bus/nd/drivers/$DRIVER/bind"
		rounds=$((rounds + 1))
	done
	wait
	echo "# $rounds rounds"
	check "$(cat "$ND/$2/../../provider"), $1: bound at the end" test -b "/dev/$(disk_of "$2")"
}

plan 5
load_driver
load_mce_inject
nvdimm=$(nfit_ns)
other=$(e820_ns)
for namespace in $nvdimm $other; do
	forget_errors "$(disk_of "$namespace")"
	test_rebind reports "$namespace" report_pages
	test_rebind exceptions "$namespace" raise_pages
done

# count_covered: the number of injected pages in the disk's badblocks.
count_covered() {
	awk -v pages=$PAGES '
		{ for (p = int($1 / 128); p * 128 < $1 + $2 && p < pages; p++)
			if ($1 <= p * 128 && $1 + $2 >= p * 128 + 8) seen[p] = 1 }
		END { n = 0; for (p in seen) n++; print n }' "/sys/block/$(disk_of "$nvdimm")/badblocks"
}
all_covered() {
	[ "$(count_covered)" = $PAGES ]
}
check "each of those on the NVDIMM is listed" wait_for 10 all_covered
