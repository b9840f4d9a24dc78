# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests of XFS files that share blocks, on memory that fails: directly on a disk, on dm-linear, and on
# dm-linear on a partition. (On a partition itself, XFS does not support both DAX and shared blocks.)
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/reflink.sh"
#	reflink_stack linear; …; reflink_end

# shellcheck source=tests/lib/badblocks.sh
. "$TESTS/lib/badblocks.sh"
# shellcheck source=tests/lib/stack.sh
. "$TESTS/lib/stack.sh"

# shellcheck disable=SC2034 # for the tests
STACKS='disk linear partition'

# reflink_load: loads the driver under test; rust_pmem can then poison memory. DISK is the disk under test, NAMESPACE
# its namespace.
reflink_load() {
	case $DRIVER in
	rust_pmem) load_with_inject ;;
	*) load_driver ;;
	esac
	NAMESPACE=$(namespaces e820 | while read -r reflink_ns; do
		[ "$(cat "$ND/$reflink_ns/size")" -lt $((300 << 20)) ] || echo "$reflink_ns"
	done)
	DISK=$(disk_of "$NAMESPACE")
}

# reflink_stack disk|linear|partition: makes XFS on that kind of device, and mounts it.
reflink_stack() {
	reflink_sectors=$((620 << 10))
	wipefs -aq "/dev/$DISK"
	blockdev --rereadpt "/dev/$DISK"
	case $1 in
	disk) reflink_top=$DISK ;;
	linear)
		dm_create linear "0 $reflink_sectors linear /dev/$DISK 4096"
		reflink_top=mapper/linear
		;;
	partition)
		printf 'label: gpt\nstart=4096, size=%d\n' $reflink_sectors | sfdisk -q --wipe never "/dev/$DISK"
		wait_for 60 test -e "/dev/${DISK}p1"
		dm_create linear "0 $reflink_sectors linear /dev/${DISK}p1 0"
		reflink_top=mapper/linear
		;;
	esac
	make_fs xfs "$reflink_top" -m reflink=1,rmapbt=1
	mount_dax "$reflink_top"
}

# reflink_unstack: removes any device above the disk.
reflink_unstack() {
	! dmsetup info linear >/dev/null 2>&1 || dm_remove linear
	rm -f /dev/mapper/linear
}

reflink_end() {
	umount "$MNT"
	reflink_unstack
}

cleanup() {
	umount "$MNT" 2>/dev/null
	reflink_unstack
	forget_errors "${DISK:-}"
	unload_driver
}

# namespace_offset_of FILE OFFSET: the offset of that byte in the namespace, which is in raw mode.
namespace_offset_of() {
	echo $(($(pmem-io phys "$1" --offset "$2") - $(cat "$ND/$NAMESPACE/resource")))
}

# make_bad add|poison OFFSET: lists this page of the namespace as bad. With `add` it stays readable, with `poison` it is
# unmapped from the direct map.
make_bad() {
	dd if="/dev/$DISK" of=/tmp/saved."$2" bs=4k count=1 iflag=direct,skip_bytes skip="$2" status=none
	case $DRIVER/$1 in
	rust_pmem/add) echo "add $2 4096" >"$ND/$NAMESPACE/errors/list" ;;
	rust_pmem/poison) echo "poison $2 4096" >"$POISON/$NAMESPACE" ;;
	*) echo "$(($2 / 512)) 8" >"/sys/block/$DISK/badblocks" ;;
	esac
}

# make_good OFFSET: makes the page good again, with its old contents. nd_pmem needs a write for that.
make_good() {
	case $DRIVER in
	rust_pmem) echo "drop $1 4096" >"$ND/$NAMESPACE/errors/list" ;;
	*) dd if=/tmp/saved."$1" of="/dev/$DISK" bs=4k count=1 oflag=direct,seek_bytes seek="$1" conv=notrunc status=none ;;
	esac
}

# read_page FILE NUMBER: the result of a read of that page.
read_page() {
	errno_of pmem-io pread "$1" --offset $(($2 * 4096)) --length 4K
}
