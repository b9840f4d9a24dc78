#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks while namespaces are bound and unbound crash nothing, and those on an NVDIMM are all listed.
# vm: --bare --e820 32M@512M --nvdimm size=48M --cpus 2
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
	rm -f /tmp/mce_over
	{
		mce_inject_pages "$start" 65536 0 299
		touch /tmp/mce_over
	} &
	rounds=0
	until [ -e /tmp/mce_over ]; do
		echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/unbind"
		echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/bind"
		rounds=$((rounds + 1))
	done
	wait
	echo "# $rounds rounds"
	check "$(cat "$ND/$namespace/../../provider"): bound at the end" test -b "/dev/$(disk_of "$namespace")"
done

# count_covered: the number of injected pages in the disk's badblocks.
count_covered() {
	awk '
		{ for (p = int($1 / 128); p * 128 < $1 + $2 && p < 300; p++)
			if ($1 <= p * 128 && $1 + $2 >= p * 128 + 8) seen[p] = 1 }
		END { n = 0; for (p in seen) n++; print n }' "/sys/block/$(disk_of "$nvdimm")/badblocks"
}
all_covered() {
	[ "$(count_covered)" = 300 ]
}
check "each of those on the NVDIMM is listed" wait_for 10 all_covered
