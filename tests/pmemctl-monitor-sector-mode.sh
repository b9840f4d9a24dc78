#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl monitor reports a machine check under a disk in sector mode, which has no badblocks of its own.
# vm: three
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"
. "$(dirname "$0")/lib/monitor.sh"

cleanup() {
	[ -z "${MONITOR_PID:-}" ] || kill "$MONITOR_PID" 2>/dev/null
	wait
	forget_errors "$disk"
	make_namespace -e "$namespace" -m raw
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no list in sector mode"
plan 6
load_driver
namespace=$(nfit_ns)
check "in sector mode" make_namespace -e "$namespace" -m sector
disk=$(disk_of "$namespace")
# shellcheck disable=SC2119 # all disks
start_monitor
is "it is watched, as are the others" "$(jq -r 'select(.event == "watching") | .disks[]' $EVENTS | sort | xargs)" \
	"$(printf '%s\n' "$disk" "$(e820_disk)" "$(disk_of "$(virtio_ns)")" | sort | xargs)"
host mce $(($(cat "$ND/$namespace/resource") + (8 << 20))) 12
wait_for 30 grep -q '"event":"bad"' $EVENTS || :
is "reported, with the offset in the namespace" \
	"$(jq -r 'select(.event == "bad") | "\(.disk) \(.namespace_offset) \(.length)"' $EVENTS)" "$disk $((8 << 20)) 4096"
is "with its physical address" "$(jq 'select(.event == "bad") | .physical_address' $EVENTS)" \
	$(($(cat "$ND/$namespace/resource") + (8 << 20)))
check_schema monitor $EVENTS
stop_monitor
is "SIGTERM: status 0" "$monitor_status" 0
