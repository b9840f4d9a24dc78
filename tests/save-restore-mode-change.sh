#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Saved errors belong to the memory of the region: after a mode change they are restored where the data is now.
#
# With nd_pmem, through the file badblocks.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	[ "$STAGE" != 1 ] || return 0
	umount $STATE
	forget_errors "$disk"
	make_namespace -e "$namespace" -m raw
}

load_driver
namespace=$(nfit_ns)
mount_state_dir "$(disk_of "$(virtio_ns)")"

case $STAGE in
1)
	plan 4
	disk=$(make_fsdax "$namespace")
	start_follow
	# Relative to the start of the data.
	data=$(($(cat "$ND/$(device_of_disk "$disk")/resource")))
	echo $(((data - $(namespace_start "$namespace")) / 512)) >$STATE/data
	inject_mce "$disk" $((data + 1048576)) 12
	is "listed" "$(tail -n 1 /tmp/badblocks)" '2048 8'
	check "saved" wait_for 40 has_saved "$(disk_of "$namespace")" 8
	is "from the start of the region" "$(jq -r '.list.errors[].offset' $STATE/nfit-*.json)" $((data + 1048576 - $(namespace_start "$namespace")))
	is "by the DIMM's own id" "$(jq -r '.list.memory.pieces[].device' $STATE/nfit-*.json)" "$(cat "$ND"/nmem0/nfit/id)"
	sync
	host powercut
	;;
2)
	plan 7
	read -r data <$STATE/data
	disk=$(disk_of "$namespace")
	is "fsdax: restored" "$(restore "$namespace")" "$disk restored 8"
	is "fsdax: listed" "$(cat "/sys/block/$disk/badblocks")" '2048 8'
	check_fails "fsdax: can't be read" pmem-io pread --direct --offset 1M --length 4K "/dev/$disk"
	check "fsdax: but what is before it" pmem-io pread --direct --length 1M "/dev/$disk"
	check "raw now" make_namespace -e "$namespace" -m raw
	disk=$(disk_of "$namespace")
	pmemctl errors restore --json "$namespace" >/tmp/restore.json
	is "raw: it is restored where it is now, or was brought along" "$(jq -r '.reports[0].bad_sectors' /tmp/restore.json)" 8
	is "raw: listed" "$(cat "/sys/block/$disk/badblocks")" "$((data + 2048)) 8"
	sync
	host reboot
	;;
3)
	plan 3
	read -r data <$STATE/data
	# No driver was bound in this boot when the mode changes.
	check "fsdax once more" make_namespace -e "$namespace" -m fsdax -M dev
	disk=$(disk_of "$namespace")
	is "restored" "$(restore "$disk")" "$disk restored 8"
	moved=$(($(namespace_start "$namespace") + (data + 2048) * 512 - $(cat "$ND/$(device_of_disk "$disk")/resource")))
	is "listed" "$(cat "/sys/block/$disk/badblocks")" "$((moved / 512)) 8"
	;;
esac
