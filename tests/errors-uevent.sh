#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# New errors send a uevent of the namespace's device: one for many at once, and none for known errors or for the disk.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

EVENTS=/tmp/uevents

cleanup() {
	[ -z "${monitor:-}" ] || kill "$monitor"
	provider_cleanup
}

# start_events: starts a record of the kernel's uevents.
start_events() {
	udevadm monitor --kernel --property >$EVENTS &
	monitor=$!
	await_events
}

# records UUID: sends a uevent of the provider's module; it, or one before it with the same UUID, is in the record.
records() {
	echo "change $1" >/sys/module/pmem_provider/uevent
	grep -q "^SYNTH_UUID=$1" $EVENTS
}

# await_events: waits until all uevents that were sent before are in the record.
await_events() {
	wait_for 60 records "$(cat /proc/sys/kernel/random/uuid)"
}

# count_events TEXT: how many uevents of changes have the line.
count_events() {
	awk -v RS= -v text="$1" '/\nACTION=change\n/ && index($0 "\n", "\n" text "\n")' $EVENTS | grep -c '^ACTION=' || :
}

# has_events N: that many uevents about errors have come.
has_events() {
	[ "$(count_events BADBLOCKS=added)" -ge "$1" ]
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem sends none"
need pmem-io udevadm
plan 14
provide pages=1
list=$ND/$NAMESPACE/errors/list
start_events

provider bad 1M+4K
check "an error that the bus reports" wait_for 60 has_events 1
is "it names the device" "$(count_events "DEVPATH=$(realpath "$ND/$NAMESPACE" | sed 's,^/sys,,')")" 1
echo "add $((2 << 20)) 512" >"$list"
check "an error that a user adds" wait_for 60 has_events 2
echo "add $((2 << 20)) 512" >"$list"
provider bad 1M+4K
await_events
is "errors that are known" "$(count_events BADBLOCKS=added)" 2
pmem-io pwrite --direct --length 4K "/dev/$DISK" --offset 2M
is "a write repairs one" "$(grep -c ' 512 ' "$list")" 0
await_events
is "a repair" "$(count_events BADBLOCKS=added)" 2
echo "add $((2 << 20)) 512" >"$list"
check "an error where one was repaired" wait_for 60 has_events 3
provider bad "$(seq -f %.0fM+4K -s , 4 67)"
check "64 errors" wait_for 60 has_events 4
await_events
is "it was one for all of them" "$(count_events BADBLOCKS=added)" 4
is "none of the disk" "$(count_events SUBSYSTEM=block)" 0
rebind "$NAMESPACE"
# The bus reports it again, which sends the uevent of all that are new.
provider bad 1M+4K
await_events
is "a rebind, which finds them" "$(count_events BADBLOCKS=added)" 4
host mce $((MEMORY + (5 << 19))) 12
check "a machine check" wait_for 60 has_events 5

provider_cleanup
provide dimm=0
disk=$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)
await_events
before=$(count_events BADBLOCKS=added)
provider bad 40M+4K
check "sector mode" wait_for 60 has_events $((before + 1))
device=$(device_of_disk "$disk")
is "sector mode: it names the device" "$(count_events "DEVPATH=$(realpath "$ND/$device" | sed 's,^/sys,,')")" 1
