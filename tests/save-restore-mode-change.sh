#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Saved errors belong to the memory of the region: in another mode, or in other namespaces, they are restored where the data is now.
#
# With nd_pmem, through the file badblocks. It takes no errors in sector mode, whose disks have no such file.
# vm: labels-virtio
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	[ "$STAGE" != 1 ] || return 0
	umount $STATE
	forget_errors "$disk"
	forget_errors "$large"
	make_namespace -e "$plain" -m raw
}

# make_one ARGUMENTS OF ndctl create-namespace…: makes a namespace in the region with labels; prints its disk.
make_one() {
	make_namespace -r "$region" "$@" | jq -r .blockdev
}

# made_namespace: the namespace that was made there.
made_namespace() {
	ndctl list -N -r "$region" | jq -r '.[].dev'
}

# sector_in_region DEVICE SECTOR: the sector of the device's data, counted from the start of the region.
sector_in_region() {
	echo $((($(cat "$ND/$1/resource") - $(cat "$ND/$1/../resource")) / 512 + $2))
}

# id_of REGION: that of its first DIMM.
id_of() {
	IFS=, read -r id_dimm _ <"$ND/$1/mapping0"
	cat "$ND/$id_dimm/nfit/id"
}

# saved_of REGION FIELD: this field of each of its saved errors.
saved_of() {
	jq -r ".list.errors[].$2" $STATE/nfit-"$(id_of "$1")"-*.json
}

# saved_sectors: the sectors of the errors in the region with labels, from its start.
saved_sectors() {
	saved_of "$region" "offset / 512" | sort -n
}

load_driver
[ "$STAGE" != 1 ] || fresh_labels
region=$(labelled_region)
# That of the NVDIMM without labels.
plain=$(plain_namespace)
plain_region=$(region_of_namespace "$plain")
mount_state_dir "$(raw_disk "$(virtio_ns)")"
# Within the data of the first sectors that are written.
offset=$((8 << 20))

case $STAGE in
1)
	case $DRIVER in
	rust_pmem) plan 9 ;;
	*) plan 4 ;;
	esac
	disk=$(make_fsdax "$plain")
	start_follow
	# Relative to the start of the data.
	data=$(($(cat "$ND/$(device_of_disk "$disk")/resource")))
	echo $(((data - $(namespace_start "$plain")) / 512)) >$STATE/data
	inject_mce "$disk" $((data + 1048576)) 12
	is "listed" "$(tail -n 1 /tmp/badblocks)" '2048 8'
	check "saved" wait_for 40 has_saved "$(disk_of "$plain")" 8
	is "from the start of the region" "$(saved_of "$plain_region" offset)" $((data + 1048576 - $(namespace_start "$plain")))
	is "by the DIMM's own id" "$(jq -r '.list.memory.pieces[].device' $STATE/nfit-*.json)" "$(id_of "$plain_region")"
	if [ "$DRIVER" = rust_pmem ]; then
		check "in sector mode" make_namespace -r "$region" -m sector -s 64M
		namespace=$(made_namespace)
		sector=$(disk_of "$namespace")
		at=$(sector_in_region "$namespace" $((offset / 512)))
		check "no list on the disk" test ! -e "/sys/block/$sector/badblocks"
		pmem-io poll "$ND/$region/badblocks" --run "host mce $(($(namespace_start "$namespace") + offset)) 12" >/tmp/badblocks
		is "the region's list has it" "$(tail -n 1 /tmp/badblocks)" "$at 8"
		cut -d ' ' -f 3 "$ND/$(device_of_disk "$sector")/errors/list" >$STATE/origin
		check "saved soon" wait_for 40 has_saved "$sector" 8
		is "sector mode: from the start of the region" "$(saved_of "$region" offset)" $((at * 512))
	fi
	sync
	host powercut
	;;
2)
	case $DRIVER in
	rust_pmem) plan 14 ;;
	*) plan 9 ;;
	esac
	read -r data <$STATE/data
	disk=$(disk_of "$plain")
	is "fsdax: restored" "$(restore "$plain")" "$disk restored 8"
	is "fsdax: listed" "$(cat "/sys/block/$disk/badblocks")" '2048 8'
	check_fails "fsdax: can't be read" pmem-io pread --direct --offset 1M --length 4K "/dev/$disk"
	check "fsdax: but what is before it" pmem-io pread --direct --length 1M "/dev/$disk"
	check "raw now" make_namespace -e "$plain" -m raw
	disk=$(disk_of "$plain")
	pmemctl errors restore --json "$plain" >/tmp/restore.json
	is "raw: it is restored where it is now, or was brought along" "$(jq -r '.reports[0].bad_sectors' /tmp/restore.json)" 8
	is "raw: listed" "$(cat "/sys/block/$disk/badblocks")" "$((data + 2048)) 8"

	if [ "$DRIVER" = rust_pmem ]; then
		namespace=$(made_namespace)
		sector=$(disk_of "$namespace")
		check_fails "forgotten by the kernel" grep . "$ND/$region/badblocks"
		is "restored" "$(restore "$sector")" "$sector restored 8"
		becomes "the region's list has it" "$(sector_in_region "$namespace" $((offset / 512))) 8" cat "$ND/$region/badblocks"
		is "with its origin" "$(cat "$ND/$(device_of_disk "$sector")/errors/list")" "$offset 4096 restored"
		is "saved under the one it had" "$(pmemctl errors save "$sector" --json | jq -r '.reports[0].result'; saved_of "$region" origin)" "unchanged
$(cat $STATE/origin)"
		# Repaired, so that none is saved any more.
		forget_errors "$sector"
		pmemctl errors save "$sector"
		ndctl destroy-namespace -f -r "$region" all >/dev/null 2>&1
	fi

	raw=$(make_one -m raw -s 64M)
	fsdax=$(make_one -m fsdax -s 64M)
	echo "16384 8" >"/sys/block/$raw/badblocks"
	echo "4096 1" >"/sys/block/$fsdax/badblocks"
	check "saved" pmemctl errors save --all
	{
		sector_in_region "$(device_of_disk "$raw")" 16384
		sector_in_region "$(device_of_disk "$fsdax")" 4096
	} | sort -n >$STATE/sectors
	is "from the start of the region" "$(saved_sectors)" "$(cat $STATE/sectors)"
	sync
	host reboot
	;;
3)
	plan 10
	read -r data <$STATE/data
	# No driver was bound in this boot when the mode changes.
	check "fsdax once more" make_namespace -e "$plain" -m fsdax -M dev
	disk=$(disk_of "$plain")
	is "restored" "$(restore "$disk")" "$disk restored 8"
	moved=$(($(namespace_start "$plain") + (data + 2048) * 512 - $(cat "$ND/$(device_of_disk "$disk")/resource")))
	is "listed" "$(cat "/sys/block/$disk/badblocks")" "$((moved / 512)) 8"

	ndctl destroy-namespace -f -r "$region" all >/dev/null 2>&1
	small=$(make_one -m fsdax -M mem -s 64M)
	is "the part that one covers" "$(restore "$small" | cut -d ' ' -f 2)" restored
	is "and no other" "$(wc -l <"/sys/block/$small/badblocks")" 1
	# The other errors are still to be restored.
	check "saved again" pmemctl errors save --all
	is "nothing is forgotten" "$(saved_sectors)" "$(cat $STATE/sectors)"
	ndctl destroy-namespace -f -r "$region" all >/dev/null 2>&1
	large=$(make_one -m fsdax -M mem -s 192M)
	restore "$large" >/tmp/restored
	is "all is listed" "$(awk -v at="$(sector_in_region "$(device_of_disk "$large")" 0)" '{ print $1 + at }' "/sys/block/$large/badblocks")" \
		"$(cat $STATE/sectors)"
	is "by its length" "$(cut -d ' ' -f 2 "/sys/block/$large/badblocks" | sort -n | xargs)" "1 8"
	is "once more: there already" "$(restore "$large")" "$large there-already 0"
	;;
esac
