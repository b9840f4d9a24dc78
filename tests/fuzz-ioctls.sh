#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Mutated ioctls of a disk in raw and fsdax mode, of buses and of DIMMs leave what a model says, with recorded results.
#
# The same requests for both drivers. SEED, COUNT, FIRST and ONLY in the environment select others; `make fuzz` tries more.
# compare
# vm: provider-labels
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fuzz.sh"

# try_ioctls MODE COUNT: 2 rows.
try_ioctls() {
	status=0
	fuzz_ioctls "$1" --seed "${SEED:-1}" --count "${COUNT:-$2}" >/tmp/ioctls || status=$?
	is "$1: bad blocks and contents are those of the model" "$status" 0
	record "$1: results" "$(cat /tmp/ioctls)"
}

need pmem-fuzz
plan 4
# The first bus and DIMM are those of the NVDIMM, which has no namespace.
remove_providers
modprobe nfit
settle
fresh_labels
try_ioctls raw 4000
try_ioctls fsdax 2000
