#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# kmemleak.sh: searches for leaks. The kernel reports new ones in its log, which fails the test that has run before; this
# prints where they were allocated.
#
# The first scan only records the contents of objects that look lost; the second reports those that have not changed, and is 5 s old
# (mm/kmemleak.c).
leaks=/sys/kernel/debug/kmemleak
[ -e $leaks ] || exit 0
echo scan >$leaks
sleep 5
echo scan >$leaks
sed 's/^/# /' $leaks
echo clear >$leaks
