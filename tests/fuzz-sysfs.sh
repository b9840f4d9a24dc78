#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Random writes to every file of a region, its devices, disks, bus, DIMM and driver leave lists and sectors in agreement.
#
# SEED and COUNT in the environment select others; `make fuzz` tries more.
# compare
# vm: provider-labels
# timeout: 300
# expect-splat: at pmem_sector_size+
# expect-splat: at nsio_rw_bytes+
# expect-splat: WARN() < size_store
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fuzz.sh"

need pmem-fuzz ndctl
plan 4
remove_providers
modprobe nfit
load_driver
check "a sector is listed if, and only if, it can't be read" fuzz_files --seed "${SEED:-1}" --count "${COUNT:-2000}"
[ -z "$tap_output" ] || echo "$tap_output" | sed 's/^/# /'
check_usable_afterwards
# What it has unmapped stays so for the tests that follow.
[ "$DRIVER" != rust_pmem ] || forget_errors "$(labelled_disk -m fsdax -M mem)"
check "the same of a bus without commands" fuzz_provider_files --seed "${SEED:-1}" --count "${COUNT:-2000}"
[ -z "$tap_output" ] || echo "$tap_output" | sed 's/^/# /'
provider_cleanup
provide size=$((32 << 20)) pages=1
blkdiscard -f -z "/dev/$DISK"
provider_cleanup
