#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# In an fsdax namespace, lists, results and data match a model after each of thousands of random steps.
#
# Its data begins behind the struct pages: badblocks counts from there, errors/list from the start of the namespace.
# vm: provider
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/model.sh"

need pmem-io
: "${MODEL_CASES:=4}"
plan 1
provide dimm=1
disk=$(make_fsdax "$NAMESPACE" dev)
device=$(device_of_disk "$disk")
data=$(($(cat "$ND/$device/resource") - $(cat "$ND/$NAMESPACE/resource")))
make_model_file "$device" "$disk"
check "as the model says" run_model "$device" "$disk" --clears command --data $data --provider /sys/module/pmem_provider/parameters/bad
