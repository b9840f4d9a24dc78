#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# One driver skips it.
# vm: three
TESTS=$(realpath "$(dirname "$0")/../../../../../tests")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "C oopses"
plan 2
check "it does not crash" true
check "it works" true
