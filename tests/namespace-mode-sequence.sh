#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# One namespace in one mode after the other, and back: each time there is what the mode says and nothing else.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	modprobe -r device_dax dax_pmem
}

# becomes MODE NODES OPTION…: reconfigured in place; the nodes in /dev, a pattern where there is none.
becomes() {
	mode=$1 node=$2
	shift 2
	shown="$mode${*:+ $*}"
	ndctl create-namespace -f -e "$namespace" -m "$mode" "$@" >/tmp/namespace-mode-sequence.json
	settle
	is "$shown: mode" "$(jq -r .mode /tmp/namespace-mode-sequence.json)" "$mode"
	is "$shown: nodes" "$(cd /dev && echo pmem0* dax0*)" "$node"
}

# serves SEED
serves() {
	check "$shown: takes and gives data" sh -c "pmem-io fill --direct --length 1M --seed $1 /dev/${node%% *} && pmem-io verify --direct --length 1M --seed $1 /dev/${node%% *}"
}

plan 24
load_driver
modprobe device_dax
labelled_disk -m raw -s 32M >/dev/null
namespace=$(jq -r .dev /tmp/labelled_disk.json)
becomes fsdax "pmem0 dax0*" -M mem
serves 1
becomes sector "pmem0s dax0*" -l 4096
serves 2
becomes devdax "pmem0* dax0.0"
becomes raw "pmem0 dax0*"
serves 3
becomes fsdax "pmem0 dax0*" -M dev
serves 4
becomes devdax "pmem0* dax0.0" -M mem
becomes sector "pmem0s dax0*" -l 512
serves 5
becomes fsdax "pmem0 dax0*" -M mem -a 4096
serves 6
unload_driver
reset_regions
load_driver
is "found again: nodes" "$(cd /dev && echo pmem0* dax0*)" "pmem0 dax0*"
check "found again: its data" pmem-io verify --direct --length 1M --seed 6 /dev/pmem0
