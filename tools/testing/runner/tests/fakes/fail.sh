#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# One of its subtests fails.
# vm: three
TESTS=$(realpath "$(dirname "$0")/../../../../../tests")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"
plan 2
check "true is true" true
check "a file is there" ls /nonexistent
