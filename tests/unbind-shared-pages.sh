#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After an unbind, the memory stays claimed while XFS remembers pages that files share.
#
# Such a page has no mapping, only a count of files. Without the reverse map, XFS drops the pages at unbind of those files
# only that are not open.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "with the C driver the struct pages go away under the file system"

cleanup() {
	exec 5<&- 6<&-
	umount $MNT 2>/dev/null
}

plan 6
load_driver
disk=$(labelled_disk -m fsdax -M mem)
namespace=$(device_of_disk "$disk")
make_fs xfs "$disk" -m reflink=1,rmapbt=0
mount_dax "$disk"
truncate -s 1M $MNT/one
pmem-io fill $MNT/one
check "a copy that shares all blocks" cp --reflink=always $MNT/one $MNT/two
# Then no page is remembered from the time before they were shared.
umount $MNT
mount_dax "$disk"
exec 5<$MNT/one 6<$MNT/two
check "both mapped and read" sh -c "pmem-io map-read $MNT/one && pmem-io map-read $MNT/two"
echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/unbind"
is "it can't be bound while the file system remembers the pages" "$(bind_error "$namespace")" "Device or resource busy"
exec 5<&- 6<&-
check "umount" umount $MNT
check "it can be bound again" sh -c "echo $namespace >/sys/bus/nd/drivers/$DRIVER/bind"
mount_dax "$disk"
check "the files are there" sh -c "pmem-io verify $MNT/one && pmem-io verify $MNT/two"
