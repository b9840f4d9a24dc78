#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Valid, nearly valid and random commands to errors/list give the documented errno and list.
#
# SEED and COUNT in the environment select others; `make fuzz` tries more.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need pmem-fuzz
plan 1
provide size=$((8 << 20)) pages=1
check "as the model says" pmem-fuzz commands "$ND/$NAMESPACE/errors/list" $((8 << 20)) --seed "${SEED:-1}" --count "${COUNT:-8000}"
