#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Disks, files and mappings in use survive unbinds, mode changes, errors, repairs, read-only switches and unloads at random.
#
# A part of `make soak`.
# vm: no-debug 2
# timeout: 900
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/operations.sh"

: "${SEED:=1}"
[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem frees struct pages that are in use, and may crash the kernel"
need pmem-io fio e2fsck ndctl jq
plan 10
operations_prepare ext4 1
operate 5
check_operations ""
