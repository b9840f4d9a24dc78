#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Valid, nearly valid and random commands to errors/list give the documented errno and list.
#
# SEED, COUNT, FIRST and ONLY in the environment select others; `make fuzz` tries more.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fuzz.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need pmem-fuzz
plan 1
provide size=$((8 << 20)) pages=1
# shellcheck disable=SC2086 # options
check "as the model says" pmem-fuzz commands $FUZZ_SELECTED "$ND/$NAMESPACE/errors/list" $((8 << 20)) \
	--seed "${SEED:-1}" --count "${COUNT:-8000}"
