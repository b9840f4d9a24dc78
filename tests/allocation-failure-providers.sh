#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bind or unbind of each provider's memory in which any one allocation fails gives an errno and no disk, or succeeds; no error is lost.
#
# In each mode. The same holds for a change of the list of errors; a repair succeeds.
# debug
# expect-splat: vmalloc error
# expect-splat: vmemmap alloc failure
# expect-splat: at arch_add_memory+
# vm: three
# timeout: 3600
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need_faults

# make_raw: all in raw mode, as other tests want it, too.
make_raw() {
	for namespace in "$(nfit_ns)" "$(e820_ns)" "$(virtio_ns)"; do
		raw_disk "$namespace" >/dev/null
	done
}

cleanup() {
	make_raw
	provider_cleanup
}

plan 93
modprobe nfit
load_driver_anew
make_raw
check_provider "$(nfit_ns)" "$(e820_ns)" "$(virtio_ns)"
