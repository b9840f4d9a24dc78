#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Where the bus has commands and none to clear errors: thousands of random steps, after each of which lists, answers and data are a
# model's, whether overwriting heals or not.
# vm: --bare --e820 32M@512M --nvdimm size=48M
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/model.sh"

cleanup() {
	unload_driver
}

[ "$DRIVER" = rust_pmem ] || skip_all "C never heals there, so that no series can begin with good memory"
need pmem-io
# Where nothing heals, lists only grow, and series take long.
: "${MODEL_CASES:=3}"
plan 2
load_driver
namespace=$(nfit_ns)
disk=$(disk_of "$namespace")
check "as the model says, where nothing heals" run_model "$namespace" "$disk" --clears never
MODEL_AFTER_BIND="echo 1 >/sys/block/$disk/errors/overwrite_heals"
eval "$MODEL_AFTER_BIND"
check "where overwriting does" run_model "$namespace" "$disk" --clears overwrite
