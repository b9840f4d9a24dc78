#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On a bus that cannot clear poison, lists, results and data match a model after each of thousands of random steps.
#
# Covers errors/overwrite_heals off and on.
# vm: three
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/model.sh"

cleanup() {
	forget_errors "$disk"
	unload_driver
}

[ "$DRIVER" = rust_pmem ] || skip_all "C never repairs there, so no series can begin without errors"
need pmem-io
# Without repair the lists only grow, and each case takes long.
: "${MODEL_CASES:=3}"
plan 2
load_driver_anew
namespace=$(nfit_ns)
disk=$(raw_disk "$namespace")
check "as the model says, where nothing repairs" run_model "$namespace" "$disk" --clears never
MODEL_AFTER_BIND="echo 1 >/sys/block/$disk/errors/overwrite_heals"
eval "$MODEL_AFTER_BIND"
check "where overwriting does" run_model "$namespace" "$disk" --clears overwrite
