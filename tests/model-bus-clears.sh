#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Where the bus clears errors: thousands of random steps (errors, reads, writes, zeroes, a file, its mapping, bindings), after each of
# which lists, answers and data are a model's.
# vm: --bare --append memmap=128M$512M
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/model.sh"

cleanup() {
	umount "$MNT" 2>/dev/null
	provider_cleanup
}

need pmem-io
plan 1
provide pages=1
make_model_file "$NAMESPACE" "$DISK"
check "as the model says" run_model "$NAMESPACE" "$DISK" --clears command --provider /sys/module/pmem_provider/parameters/bad
