#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Disks, files and mappings in use survive unbinds, mode changes, errors, repairs, read-only switches and unloads at random.
#
# Half a minute of `make soak`, for kernels on which an hour is too long.
# soak
# vm: --bare --append memmap=128M$512M --cpus 2
# kernel: device_dax
# timeout: 900
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/operations.sh"

: "${SEED:=1}"
need pmem-io fio e2fsck ndctl jq
plan 8
operations_prepare
operate 25
check_operations ""
