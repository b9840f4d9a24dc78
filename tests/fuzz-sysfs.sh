#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Random writes to every file of a region, its devices, disks, bus, DIMM and driver leave lists and sectors in agreement.
#
# SEED and COUNT in the environment select others; `make fuzz` tries more.
# compare
# quick
# vm: --bare --nvdimm size=256M,labels --append memmap=64M$512M
# timeout: 300
# expect-splat: at pmem_sector_size+
# expect-splat: at nsio_rw_bytes+
# expect-splat: WARN() < size_store
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fuzz.sh"

need pmem-fuzz ndctl
plan 4
modprobe nfit
load_driver
check "a sector is listed if, and only if, it can't be read" fuzz_files --seed "${SEED:-1}" --count "${COUNT:-2000}"
[ -z "$tap_output" ] || echo "$tap_output" | sed 's/^/# /'
check_usable_afterwards
check "the same of a bus without commands" fuzz_provider_files --seed "${SEED:-1}" --count "${COUNT:-2000}"
[ -z "$tap_output" ] || echo "$tap_output" | sed 's/^/# /'
provider_cleanup
