#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# It never exits.
# timeout: 5
# vm: three
echo 'KTAP version 1'
echo '1..1'
sleep 1000
