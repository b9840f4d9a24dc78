#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Mutated ioctls of a disk, of buses and of DIMMs leave bad blocks and contents as a model says, with recorded results.
#
# The same requests for both drivers. SEED, COUNT, FIRST and ONLY in the environment select others; `make fuzz` tries more.
# compare
# quick
# vm: --bare --nvdimm size=64M,labels --append memmap=128M$512M
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fuzz.sh"

need pmem-fuzz
plan 2
# For the DIMM's and its bus's own commands.
modprobe nfit
provide size=$((8 << 20)) pages=1
status=0
# shellcheck disable=SC2086 # options
pmem-fuzz ioctls $FUZZ_SELECTED "/dev/$DISK" --seed "${SEED:-1}" --count "${COUNT:-4000}" >/tmp/ioctls || status=$?
is "bad blocks and contents are those of the model" "$status" 0
record "results" "$(cat /tmp/ioctls)"
