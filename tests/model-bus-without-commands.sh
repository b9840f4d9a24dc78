#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On a bus without commands (e820), lists, results and data match a model after each of thousands of random steps.
# vm: three
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/model.sh"

cleanup() {
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	unload_driver
}

need pmem-io
plan 1
load_driver
namespace=$(e820_ns)
disk=$(raw_disk "$namespace")
make_model_file "$namespace" "$disk"
case $DRIVER in
nd_pmem) clears=pretends ;;
*) clears=overwrite ;;
esac
check "as the model says" run_model "$namespace" "$disk" --clears $clears
