#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Mutated info blocks, maps and logs, with right checksums as a rule, are probed and written through without a report, as recorded.
#
# The same images for both drivers. SEED, COUNT, FIRST and ONLY in the environment select others; `make fuzz` tries
# more.
# compare
# kernel: device_dax
# vm: provider
# expect-splat: at nsio_rw_bytes+
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fuzz.sh"

# try_images NAME MODE MEBIBYTES [COMMANDS BAD]: 2 rows.
try_images() {
	status=0
	fuzz_images "$2" "$3" "${4:-1}" "${5:-}" --seed "${SEED:-1}" --count "${COUNT:-60}" >/tmp/images || status=$?
	is "$1: no disk is larger than its namespace, and the sample is intact at the end" "$status" 0
	record "$1: what is bound" "$(cat /tmp/images)"
}

need pmem-fuzz
plan 12
try_images fsdax fsdax 32
try_images devdax devdax 32
try_images sector sector 32
# With a memory section, whose struct pages are on the device.
try_images "fsdax of a section, an error in the data" fsdax 160 1 20M+4K
if [ "$DRIVER" = rust_pmem ]; then
	try_images "fsdax of a section, errors that stay" fsdax 160 0 "$STAYS_IN_FSDAX"
else
	skip "fsdax of a section, errors that stay: no disk is larger than its namespace, and the sample is intact at the end" "$ENDLESS"
	skip "fsdax of a section, errors that stay: what is bound" "$ENDLESS"
fi
try_images "sector, errors that stay" sector 32 0 "$STAYS_IN_SECTOR"
