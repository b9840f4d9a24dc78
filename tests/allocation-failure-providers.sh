#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bind of each provider's memory in which any one allocation fails gives an errno and no disk, or succeeds, and forgets no error.
# debug
# expect-splat: vmalloc error
# expect-splat: vmemmap alloc failure
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
# timeout: 900
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need_faults
# As in allocation-failure-bind.
spare_allocations_in async_schedule_node_domain
plan 12
load_driver
for namespace in $(nfit_ns) $(e820_ns) $(virtio_ns); do
	echo "add 65536 4096" >"$ND/$namespace/errors/list"
done
for namespace in $(nfit_ns) $(e820_ns) $(virtio_ns); do
	echo "$namespace" >"$UNBIND"
done
for provider in nfit e820 virtio; do
	namespace=$("${provider}_ns")
	# The name has the number of the region.
	check_bind "$provider" "$namespace" "pmem$(echo "$namespace" | sed "s/namespace//; s/\.0$//")"
	is "$provider: the error is listed" "$(cat "$ND/$namespace/errors/list")" "65536 4096 log"
	echo "drop 0 $(cat "$ND/$namespace/size")" >"$ND/$namespace/errors/list"
	echo "$namespace" >"$UNBIND"
done
