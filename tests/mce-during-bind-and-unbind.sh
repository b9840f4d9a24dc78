#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks while namespaces are being bound and unbound, again and again: the kernel bears it, and of those on an NVDIMM none is
# lost.
# vm: --bare --e820 32M@512M --nvdimm size=48M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

cleanup() {
	unload_driver
}

plan 3
load_driver
load_mce_inject
nvdimm=$(nfit_ns)
other=$(e820_ns)
for namespace in $nvdimm $other; do
	forget_errors "$(disk_of "$namespace")"
	start=$(cat "$ND/$namespace/resource")
	rm -f /tmp/storm_over
	{
		mce_inject_pages "$start" 65536 0 299
		touch /tmp/storm_over
	} &
	rounds=0
	until [ -e /tmp/storm_over ]; do
		echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/unbind"
		echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/bind"
		rounds=$((rounds + 1))
	done
	wait
	echo "# $rounds rounds"
	check "$(cat "$ND/$namespace/../../provider"): bound at the end" test -b "/dev/$(disk_of "$namespace")"
done

# covered: how many of the pages are on the disk's list.
covered() {
	awk '
		{ for (p = int($1 / 128); p * 128 < $1 + $2 && p < 300; p++)
			if ($1 <= p * 128 && $1 + $2 >= p * 128 + 8) seen[p] = 1 }
		END { n = 0; for (p in seen) n++; print n }' "/sys/block/$(disk_of "$nvdimm")/badblocks"
}
all_covered() {
	[ "$(covered)" = 300 ]
}
check "each of those on the NVDIMM is listed" wait_for 10 all_covered
