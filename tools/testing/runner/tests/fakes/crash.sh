#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The kernel panics.
# vm: three
echo 'KTAP version 1'
echo '1..1'
echo c >/proc/sysrq-trigger
sleep 10
echo 'ok 1 survived'
