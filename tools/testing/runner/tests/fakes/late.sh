#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# All subtests pass, and the kernel reports a warning after the test.
# vm: three
echo 'KTAP version 1'
echo '1..1'
# The runner sleeps after the test.
(until pgrep -fx 'sleep 1' >/dev/null; do :; done; echo '<4>WARNING: late' >/dev/kmsg) </dev/null >/dev/null 2>&1 &
echo 'ok 1 no warning yet'
