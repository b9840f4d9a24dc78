#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Saved errors of an NVDIMM with labels are restored to the namespaces that it has later, of other sizes and modes.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	[ "$STAGE" != 1 ] || return 0
	umount $STATE
	forget_errors "$large"
}

# make_one ARGUMENTS OF ndctl create-namespace…: makes a namespace; prints its disk.
make_one() {
	make_namespace -r "$region" "$@" | jq -r .blockdev
}

# data_start DISK: the sector of the region where its data begins.
data_start() {
	at_device=$(readlink -f "/sys/block/$1/device")
	echo $((($(cat "$at_device/resource") - $(cat "$ND/$region/resource")) / 512))
}

load_driver
mount_state_dir "$(plain_disk)"
region=$(labelled_region)

case $STAGE in
1)
	plan 2
	fresh_labels
	raw=$(make_one -m raw -s 64M)
	fsdax=$(make_one -m fsdax -s 64M)
	echo "16384 8" >"/sys/block/$raw/badblocks"
	echo "4096 1" >"/sys/block/$fsdax/badblocks"
	check "saved" pmemctl errors save --all
	printf '%d\n' "$(($(data_start "$raw") + 16384))" "$(($(data_start "$fsdax") + 4096))" | sort -n >$STATE/sectors
	is "from the start of the region" "$(jq -r '.list.errors[].offset / 512' $STATE/nfit-*.json | sort -n)" "$(cat $STATE/sectors)"
	sync
	host reboot
	;;
2)
	plan 7
	fresh_labels
	small=$(make_one -m fsdax -M mem -s 64M)
	is "the part that one covers" "$(restore "$small" | cut -d ' ' -f 2)" restored
	is "and no other" "$(wc -l <"/sys/block/$small/badblocks")" 1
	# The other errors are still to be restored.
	check "saved again" pmemctl errors save --all
	is "nothing is forgotten" "$(jq -r '.list.errors[].offset / 512' $STATE/nfit-*.json | sort -n)" "$(cat $STATE/sectors)"
	ndctl destroy-namespace -f -r "$region" all >/dev/null 2>&1
	large=$(make_one -m fsdax -M mem -s 192M)
	restore "$large" >/tmp/restored
	is "all is listed" "$(awk -v at="$(data_start "$large")" '{ print $1 + at }' "/sys/block/$large/badblocks")" "$(cat $STATE/sectors)"
	is "by its length" "$(cut -d ' ' -f 2 "/sys/block/$large/badblocks" | sort -n | xargs)" "1 8"
	is "once more: there already" "$(restore "$large")" "$large there-already 0"
	;;
esac
