#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On a bus that clears poison, lists, results and data match a model after each of thousands of random steps.
#
# Steps: errors, reads, writes, zeroes, a file, its mapping, rebinds.
# vm: provider
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/model.sh"

need pmem-io
plan 1
provide pages=1
make_model_file "$NAMESPACE" "$DISK"
check "as the model says" run_model "$NAMESPACE" "$DISK" --clears command --provider /sys/module/pmem_provider/parameters/bad
