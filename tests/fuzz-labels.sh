#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Mutated labels of an NVDIMM, with right checksums as a rule, are probed without a report, and as recorded.
#
# The same labels for both drivers. SEED, COUNT, FIRST and ONLY in the environment select others; `make fuzz` tries
# more.
# compare
# vm: provider-labels
# timeout: 300
# expect-splat: at pmem_sector_size+
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fuzz.sh"

need pmem-fuzz ndctl
plan 2
remove_providers
modprobe nfit
load_driver
check "no disk is larger than its region, no label is changed, and the good ones are usable at the end" \
	fuzz_labels --seed "${SEED:-1}" --count "${COUNT:-200}"
record "what is bound" "${tap_output:-}"
