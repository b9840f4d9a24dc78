#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The kernel reports an oops, then the test hangs.
# timeout: 5
# vm: three
echo 'KTAP version 1'
echo '1..1'
echo '<4>BUG: unable to handle page fault for address: 0000000000000008' >/dev/kmsg
sleep 1000
