#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Two namespaces of a region can be bound at the same time, with errors in front of one that has its memmap on the device.
# vm: labels 2
# timeout: 180
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	forget_errors "$(disk_of "$one")"
	unload_driver
}

# bind_both: unbinds both, and binds them at the same time.
bind_both() {
	cd "/sys/bus/nd/drivers/$DRIVER"
	echo "$one" >unbind
	echo "$two" >unbind
	echo "$one" >bind &
	first=$!
	echo "$two" >bind &
	second=$!
	wait $first && wait $second
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem fails to bind a namespace that has errors in front of it"
plan 2
load_driver
one=$(device_of_disk "$(labelled_disk -m fsdax -M mem -s 64M)")
two=$(device_of_disk "$(make_namespace -r "$(labelled_region)" -m fsdax -M dev -s 64M | jq -r .blockdev)")
echo "add 65536 4096" >"$ND/$one/errors/list"
tries=0
while [ $tries -lt 20 ] && bind_both; do
	tries=$((tries + 1))
done
is "bound at the same time" $tries 20
is "the error is listed" "$(cat "$ND/$one/errors/list")" "65536 4096 log"
