#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Results of every kind.
# vm: three
TESTS=$(realpath "$(dirname "$0")/../../../../../tests")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"

plan 6
check "it is there" true
record "its number" 1
record "its name" "$DRIVER"
case $DRIVER in
nd_pmem) skip "it crashes" "C oopses" ;;
*) check "it crashes" true ;;
esac
skip "it can't be tried" "there is none"
check "only $DRIVER has this" true
