#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# With both drivers loaded, each keeps its namespaces, and a namespace can be handed over by unbind and bind.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

drivers=/sys/bus/nd/drivers

swap_driver_names() {
	DRIVER=$(other_driver)
}

cleanup() {
	unload_both_drivers
}

# hand_over NAMESPACE FROM TO
hand_over() {
	echo "$1" >"$drivers/$2/unbind" && echo "$1" >"$drivers/$3/bind"
}

need_both_drivers
plan 16
load_driver
nfit=$(plain_disk)
one=$(basename "$(readlink "/sys/block/$nfit/device")")
two=$(e820_ns)
e820=$(e820_disk)
other=$(other_driver)
swap_driver_names
load_driver
swap_driver_names
is "the second finds nothing to do" "$(driver_of "$one") $(driver_of "$two")" "$DRIVER $DRIVER"
region=$(basename "$(dirname "$(realpath "$ND/$one")")")
ndctl disable-region "$region" >/dev/null 2>&1
ndctl enable-region "$region" >/dev/null 2>&1
settle
is "a namespace that is made anew goes to the first" "$(driver_of "$one")" "$DRIVER"
check "it is given one" hand_over "$one" "$DRIVER" "$other"
is "and has it" "$(driver_of "$one") $(driver_of "$two")" "$other $DRIVER"
check "it writes" pmem-io fill --direct --length 4M "/dev/$nfit" --seed 1
check "and so does the first" pmem-io fill --direct --length 4M "/dev/$e820" --seed 2
check "they change places: the one" hand_over "$one" "$other" "$DRIVER"
check "they change places: the other" hand_over "$two" "$DRIVER" "$other"
is "so they have" "$(driver_of "$one") $(driver_of "$two")" "$DRIVER $other"
check "what the one wrote" pmem-io verify --direct --length 4M "/dev/$nfit" --seed 1
check "what the other wrote" pmem-io verify --direct --length 4M "/dev/$e820" --seed 2
check "the first goes" unload_driver
check "the second serves on" pmem-io verify --direct --length 4M "/dev/$e820" --seed 2
check_fails "what the first had is nobody's" test -e "/dev/$nfit"
check "the first comes back" load_driver
is "and takes what is nobody's" "$(driver_of "$one") $(driver_of "$two")" "$DRIVER $other"
