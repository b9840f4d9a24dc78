#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# It does not apply.
. "$(dirname "$0")/../../../../tests/lib.sh"
skip_all "there is no such thing here"
