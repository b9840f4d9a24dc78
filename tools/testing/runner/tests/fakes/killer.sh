#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# It kills every process that it can.
# vm: three
trap '' TERM
kill -9 -1
