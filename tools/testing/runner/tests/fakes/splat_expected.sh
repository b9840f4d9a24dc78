#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The kernel reports an expected warning.
# expect-splat: as it should
# vm: three
echo 'KTAP version 1'
echo '1..1'
echo '<4>WARNING: as it should' >/dev/kmsg
echo 'ok 1 warned'
