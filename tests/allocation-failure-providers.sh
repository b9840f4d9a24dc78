#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bind or an unbind of each provider's memory in which any one allocation fails gives an errno and no disk, or succeeds, and forgets no error.
# debug
# expect-splat: vmalloc error
# expect-splat: vmemmap alloc failure
# expect-splat: at arch_add_memory+
# vm: --bare --nvdimm size=16M --e820 16M@512M --virtio-pmem size=16M
# timeout: 900
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need_faults
plan 15
modprobe nfit
load_driver
check_bind_with_error "$(nfit_ns)" "$(e820_ns)" "$(virtio_ns)"
