#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair restores pages after machine checks in mapped files on ext4 and XFS, for read(2) and for mappings.
#
# A page that can be read after all is kept, unless the list is trusted.
# vm: files
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/sigbus.sh"

cleanup() {
	touch /tmp/sigbus.done
	umount "$MNT" 2>/dev/null
	unload_driver
}

[ "$DRIVER" = rust_pmem ] || skip_all "C lists machine checks on memory of the NFIT alone, and repairs none there"
plan 10
load_driver
for namespace in $(namespaces e820); do
	disk=$(disk_of "$namespace")
	type=ext4 option=--trust-list result='4096 repaired'
	# The machine checks are injected: the memory can be read.
	[ "$(cat "/sys/block/$disk/size")" -lt 614400 ] || type=xfs option='' result='0 good-after-all'
	make_fs $type "$disk"
	mount_dax "$disk"
	file=$MNT/file
	fallocate -l 4M "$file"
	pmem-io fill "$file"
	cp "$file" /tmp/backup
	map_start --length 4M "$file"
	for offset in 400K 1M; do
		pmem-io poll "/sys/block/$disk/badblocks" --run "host mce $(pmem-io phys "$file" --offset $offset) 12" >/dev/null
	done
	status=0
	pmemctl repair "$file" --from /tmp/backup 2>/tmp/output || status=$?
	is "$type: not while it is mapped" "$status $(grep -c "mapped by process $map_pid" /tmp/output)" "1 1"
	map_stop
	is "$type: $result" "$(pmemctl repair ${option:+"$option"} --json "$file" --from /tmp/backup | jq -r '[.pieces[] | "\(.file_offset) \(.replaced) \(.result)"] | join(", ")')" \
		"409600 $result, 1048576 $result"
	is_empty "$type: nothing is listed" cat "/sys/block/$disk/badblocks"
	check "$type: read" pmem-io verify "$file"
	check "$type: mapped" pmem-io map-verify "$file"
	umount "$MNT"
done
