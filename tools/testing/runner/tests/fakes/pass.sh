#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Everything passes, with binary output.
# vm: three
TESTS=$(realpath "$(dirname "$0")/../../../../../tests")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"
plan 2
head -c 1000000 /dev/urandom
echo
check "true is true" true
check_fails "false is false" false
