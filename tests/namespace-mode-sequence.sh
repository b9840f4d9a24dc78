#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A namespace changes from mode to mode and back, and each time has exactly the nodes of that mode.
# kernel: device_dax
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	modprobe -r device_dax dax_pmem
}

# change_mode MODE NODES OPTION…: reconfigures in place; the nodes in /dev, a glob pattern if there is none.
change_mode() {
	mode=$1 node=$2
	shift 2
	shown="$mode${*:+ $*}"
	ndctl create-namespace -f -e "$namespace" -m "$mode" "$@" >/tmp/namespace-mode-sequence.json
	settle
	is "$shown: mode" "$(jq -r .mode /tmp/namespace-mode-sequence.json)" "$mode"
	is "$shown: nodes" "$(cd /dev && echo pmem0* dax0*)" "$node"
}

# check_data SEED
check_data() {
	check "$shown: takes and gives data" sh -c "pmem-io fill --direct --length 1M --seed $1 /dev/${node%% *} && pmem-io verify --direct --length 1M --seed $1 /dev/${node%% *}"
}

plan 24
load_driver
modprobe device_dax
labelled_disk -m raw -s 32M >/dev/null
namespace=$(jq -r .dev /tmp/labelled_disk.json)
change_mode fsdax "pmem0 dax0*" -M mem
check_data 1
change_mode sector "pmem0s dax0*" -l 4096
check_data 2
change_mode devdax "pmem0* dax0.0"
change_mode raw "pmem0 dax0*"
check_data 3
change_mode fsdax "pmem0 dax0*" -M dev
check_data 4
change_mode devdax "pmem0* dax0.0" -M mem
change_mode sector "pmem0s dax0*" -l 512
check_data 5
change_mode fsdax "pmem0 dax0*" -M mem -a 4096
check_data 6
unload_driver
reset_regions
load_driver
is "found again: nodes" "$(cd /dev && echo pmem0* dax0*)" "pmem0 dax0*"
check "found again: its data" pmem-io verify --direct --length 1M --seed 6 /dev/pmem0
