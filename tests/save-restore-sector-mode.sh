#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Errors under a disk in sector mode, which has no badblocks of its own, are saved and restored.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	[ "$STAGE" != 1 ] || return 0
	umount $STATE
	forget_errors "$disk"
	make_namespace -e "$namespace" -m raw
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem takes no errors in sector mode"
load_driver
namespace=$(nfit_ns)
mount_state_dir "$(disk_of "$(virtio_ns)")"
# Within the data of the first sectors that are written.
offset=$((8 << 20))

case $STAGE in
1)
	plan 5
	check "in sector mode" make_namespace -e "$namespace" -m sector
	disk=$(disk_of "$namespace")
	check "no list on the disk" test ! -e "/sys/block/$disk/badblocks"
	start_follow
	pmem-io poll "$ND/$namespace/../badblocks" --run "host mce $(($(namespace_start "$namespace") + offset)) 12" >/tmp/badblocks
	is "the region's list has it" "$(tail -n 1 /tmp/badblocks)" "$((offset / 512)) 8"
	cut -d ' ' -f 3 "$ND/$(device_of_disk "$disk")/errors/list" >$STATE/origin
	check "saved soon" wait_for 40 has_saved "$disk" 8
	is "from the start of the region" "$(jq -r '.list.errors[].offset' $STATE/nfit-*.json)" $offset
	sync
	host powercut
	;;
2)
	plan 5
	disk=$(disk_of "$namespace")
	check_fails "forgotten by the kernel" grep . "$ND/$namespace/../badblocks"
	is "restored" "$(restore "$disk")" "$disk restored 8"
	becomes "the region's list has it" "$((offset / 512)) 8" cat "$ND/$namespace/../badblocks"
	device=$(device_of_disk "$disk")
	is "with its origin" "$(cat "$ND/$device/errors/list")" "$offset 4096 restored"
	is "saved under the one it had" "$(pmemctl errors save "$disk" --json | jq -r '.reports[0].result'; jq -r '.list.errors[].origin' $STATE/nfit-*.json)" "unchanged
$(cat $STATE/origin)"
	;;
esac
