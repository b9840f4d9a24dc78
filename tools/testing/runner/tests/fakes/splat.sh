#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# All subtests pass, but the kernel reports a warning.
# vm: three
echo 'KTAP version 1'
echo '1..1'
echo '<4>WARNING: possible circular locking dependency detected' >/dev/kmsg
echo 'ok 1 locked'
