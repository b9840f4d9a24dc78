#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# All subtests pass, but the kernel reports a warning under one driver.
# vm: three
TESTS=$(realpath "$(dirname "$0")/../../../../../tests")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"

plan 1
check "it works" true
[ "$DRIVER" = nd_pmem ] || echo "WARNING: possible circular locking dependency detected" >/dev/kmsg
