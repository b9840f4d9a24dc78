#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Mutated info blocks, maps and logs, with right checksums as a rule, are probed and written through without a report, as recorded.
#
# The same images for both drivers. SEED, COUNT, FIRST and ONLY in the environment select others; `make fuzz` tries
# more.
# compare
# quick
# kernel: device_dax
# vm: --bare --append memmap=128M$512M
# expect-splat: at nsio_rw_bytes+
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fuzz.sh"

need pmem-fuzz
plan 8
for mode in fsdax devdax sector "fsdax, an error in the data"; do
	status=0 bad=
	[ "${mode#*,}" = "$mode" ] || bad=20M+4K
	fuzz_images "${mode%,*}" "$bad" --seed "${SEED:-1}" --count "${COUNT:-60}" >/tmp/images || status=$?
	is "$mode: no disk is larger than its namespace, and the sample is intact at the end" "$status" 0
	record "$mode: what is bound" "$(cat /tmp/images)"
done
