#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Valid, nearly valid and random commands to errors/list give the documented errno and list, in each mode with a disk.
#
# SEED, COUNT, FIRST and ONLY in the environment select others; `make fuzz` tries more.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fuzz.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need pmem-fuzz
plan 3
check "raw: as the model says" fuzz_commands raw --seed "${SEED:-1}" --count "${COUNT:-8000}"
# Half of the commands are around the start of the data.
check "fsdax: as the model says" fuzz_commands fsdax --seed "${SEED:-1}" --count "${COUNT:-4000}"
check "sector: as the model says" fuzz_commands sector --seed "${SEED:-1}" --count "${COUNT:-4000}"
