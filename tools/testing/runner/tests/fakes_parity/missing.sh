#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Both drivers skip it: what it needs is gone.
# vm: three
TESTS=$(realpath "$(dirname "$0")/../../../../../tests")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"

skip_all "there is no program"
