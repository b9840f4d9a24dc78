# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers of tests that run under the power-failure plugin of QEMU (# vm: --cpu max … --powerfail range=SIZE@START): it knows
# which cache lines of persistent memory are not durable. Its QEMU often hangs at boot with the default model of CPU.

# watch_stores: follows stores from the first call on; earlier ones count as durable. Skips the test elsewhere.
watch_stores() {
	[ -e /dev/virtio-ports/host ] || skip_all "this needs the power-failure plugin of QEMU"
	pmem-io mark watch
}

# undurable: the number of cache lines (64 bytes) that a power failure may lose.
undurable() {
	pmem-io mark undurable
}

# is_durable NAME COMMAND…: the command succeeds, and leaves no line that is not durable. It begins with none.
is_durable() {
	durable_name=$1
	shift
	durable_before=$(undurable)
	tap_run "$@"
	# shellcheck disable=SC2154 # tap_run sets it
	[ "$tap_status" -eq 0 ] || {
		durable_before="$* failed"
		tap_diagnose "status $tap_status"
	}
	is "$durable_name" "$durable_before, $(undurable)" "0, 0"
}
