#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Stored data survives a power cut.
# vm: labels
TESTS=$(realpath "$(dirname "$0")/../../../../../tests")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"
plan 1
load_driver
if [ "$STAGE" = 1 ]; then
	echo survivor | dd of=/dev/pmem0 bs=4096 conv=sync oflag=direct 2>/dev/null
	ok "stored"
	host powercut
fi
check "it is there" grep -q survivor /dev/pmem0
