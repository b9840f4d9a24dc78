#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Errors that an initramfs restores from an older copy of the saved list leave the kernel's list again if they were repaired.
#
# One that fails again meanwhile stays. What is repaired after the copy was restored is not restored again.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	[ "$STAGE" = 2 ] || return 0
	forget_errors "$disk"
	umount $STATE
}

# listed: the offsets and origins of the list.
listed() {
	cut -d ' ' -f 1,3 "$list" | sort -n >/tmp/listed
	paste -sd , /tmp/listed
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no list of errors there"
load_driver
mount_state_dir "$(plain_disk)"
namespace=$(e820_ns)
disk=$(disk_of "$namespace")
list=$ND/$namespace/errors/list

case $STAGE in
1)
	plan 1
	for offset in 1048576 2097152 3145728 4194304; do
		echo "add $offset 4096" >"$list"
	done
	pmemctl errors save "$disk"
	# The copies of an initramfs: of the same errors, and of one that is not repaired.
	mkdir $STATE/copy
	cp "$(state_file e820 "$namespace")" $STATE/copy/
	pmem-io fill --direct --offset 2M --length 4K "/dev/$disk"
	pmem-io fill --direct --offset 3M --length 4K "/dev/$disk"
	echo "add 5242880 4096" >"$list"
	pmemctl errors save "$disk"
	is "three are saved" "$(jq -r '.list.errors[].offset' "$(state_file e820 "$namespace")" | xargs)" "1048576 4194304 5242880"
	sync
	host powercut
	;;
2)
	plan 6
	# The page at 3M fails again.
	host mce $(($(namespace_start "$namespace") + 3145728))
	wait_for 60 grep -q '^3145728 ' "$list"
	is "the copy is restored" "$(restore --state-dir $STATE/copy "$disk")" "$disk restored 24"
	prints "all are listed" "1048576 restored,2097152 restored,3145728 machine-check,4194304 restored" listed
	pmem-io fill --direct --offset 4M --length 4K "/dev/$disk"
	is "what the copy lacks is restored" "$(restore "$disk")" "$disk restored 8"
	prints "what the saved list lacks has left, but for what fails again" \
		"1048576 restored,3145728 machine-check,5242880 restored" listed
	pmemctl errors save "$disk"
	echo "add 2097152 4096 restored" >"$list"
	is "a second time" "$(restore "$disk")" "$disk there-already 0"
	prints "nothing leaves" "1048576 restored,2097152 restored,3145728 machine-check,5242880 restored" listed
	;;
esac
