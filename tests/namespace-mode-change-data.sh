#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After a mode change of a namespace, old data and metadata are where recorded, and can be found again.
# compare
# kernel: device_dax
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
}

# change_mode MODE OPTION…
change_mode() {
	make_namespace -e "$namespace" -m "$@" >/tmp/namespace-mode-change-data.json
	disk=$(jq -r '.blockdev // .daxregion.devices[0].chardev' /tmp/namespace-mode-change-data.json)
}

# find_info_blocks: all info blocks in the namespace, with their offsets.
find_info_blocks() {
	with_force_raw "$namespace" grep -a -b -o 'NVDIMM_[A-Z]*_INFO\|BTT_ARENA_INFO' >/tmp/namespace-mode-change-data.blocks ||
		[ $? -eq 1 ] || return
	echo "info blocks: $(xargs </tmp/namespace-mode-change-data.blocks)"
}

# check_data OFFSET: the pattern of 4 MiB is at this offset in raw mode.
check_data() {
	# shellcheck disable=SC2016 # for sh
	with_force_raw "$namespace" sh -c 'dd if="$2" bs=1M iflag=skip_bytes skip="$1" count=4 2>/dev/null >/tmp/namespace-mode-change-data.data || exit; pmem-io verify /tmp/namespace-mode-change-data.data --length 4M >/dev/null && echo there || echo gone' sh "$1"
}

plan 23
load_driver
modprobe device_dax
labelled_disk -m raw -s 32M >/dev/null
namespace=$(jq -r .dev /tmp/labelled_disk.json)

change_mode fsdax -M mem
record "fsdax: metadata" "$(find_info_blocks)"
pmem-io fill --direct --length 4M "/dev/$disk"
is "fsdax: the data begin after 2 MiB" "$(check_data $((2 << 20)))" there
change_mode raw
record "fsdax, then raw: metadata" "$(find_info_blocks)"
is "fsdax, then raw: the data" "$(check_data $((2 << 20)))" there
change_mode fsdax -M mem
check "fsdax again: the data are where they were" pmem-io verify --direct --length 4M "/dev/$disk"
change_mode devdax -M mem
record "devdax: metadata" "$(find_info_blocks)"
check "devdax: the data are where they were" pmem-io map-verify --length 4M "/dev/$disk"
change_mode fsdax -M dev
check "fsdax, map on the device: the data of a namespace of 32 MiB are where they were" pmem-io verify --direct --length 4M "/dev/$disk"
change_mode sector
record "sector: metadata" "$(find_info_blocks)"
pmem-io fill --direct --length 4M "/dev/$disk"
change_mode raw
record "sector, then raw: metadata" "$(find_info_blocks)"
change_mode sector
record "sector again: the data" "$(pmem-io verify --direct --length 4M "/dev/$disk" >/dev/null && echo there || echo gone)"
change_mode fsdax -M mem
record "sector, then fsdax: metadata" "$(find_info_blocks)"
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 2M $MNT/file
pmem-io map-write --sync --durable flush $MNT/file >/dev/null
record_result "another mode while it is mounted" ndctl create-namespace -f -e "$namespace" -m raw
check "which does nothing to the file" pmem-io verify $MNT/file
record_result "destroyed while it is mounted" ndctl destroy-namespace -f "$namespace"
check "which does nothing to the file, either" pmem-io verify $MNT/file
record_result "disabled while it is mounted" ndctl disable-namespace "$namespace"
check "nor that" pmem-io verify $MNT/file
umount $MNT
record_result "without force" ndctl create-namespace -e "$namespace" -m raw
check "destroyed" ndctl destroy-namespace -f "$namespace"
fresh=$(ndctl create-namespace -r "$(labelled_region)" -m raw -s 32M | jq -r .dev)
settle
is "made anew in the same place: the same name" "$fresh" "$namespace"
record "made anew in the same place: metadata" "$(find_info_blocks)"
record "made anew in the same place: the file system" "$(
	change_mode fsdax -M mem
	blkid -o value -s TYPE "/dev/$disk" || echo none
)"
