#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# It kills every shell that it can.
trap '' TERM
kill -9 -1
