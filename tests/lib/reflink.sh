# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For tests of files on XFS that share blocks, on memory that fails: on a disk itself, on dm-linear, and on that in a partition (XFS takes
# no partition for both DAX and files that share blocks).
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

# reflink_load: the driver, so that memory can be poisoned with rust_pmem; DISK is what the tests are made on, LIST its errors.
reflink_load() {
	case $DRIVER in
	rust_pmem) load_injecting ;;
	*) load_driver ;;
	esac
	NAMESPACE=$(namespaces e820 | while read -r reflink_ns; do
		[ "$(cat "$ND/$reflink_ns/size")" -lt $((300 << 20)) ] || echo "$reflink_ns"
	done)
	DISK=$(disk_of "$NAMESPACE")
}

# reflink_stack disk|linear|partition: XFS there, mounted.
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
		wait_for 5 test -e "/dev/${DISK}p1"
		dm_create linear "0 $reflink_sectors linear /dev/${DISK}p1 0"
		reflink_top=mapper/linear
		;;
	esac
	make_fs xfs "$reflink_top" -m reflink=1,rmapbt=1
	mount_dax "$reflink_top"
}

# reflink_unstack: whatever is on the disk.
reflink_unstack() {
	! dmsetup info linear >/dev/null 2>&1 || dm_remove linear
	rm -f /dev/mapper/linear
}

reflink_end() {
	umount $MNT
	reflink_unstack
}

cleanup() {
	umount $MNT 2>/dev/null
	reflink_unstack
	forget_errors "${DISK:-}"
	unload_driver
}

# offset_of FILE OFFSET: where that byte is in the namespace, which is a raw one.
offset_of() {
	echo $(($(pmem-io phys "$1" --offset "$2") - $(cat "$ND/$NAMESPACE/resource")))
}

# fails add|poison OFFSET: this page of the namespace is listed, and readable all the same, or it is out of the kernel's map.
fails() {
	dd if="/dev/$DISK" of=/tmp/saved."$2" bs=4k count=1 iflag=direct,skip_bytes skip="$2" status=none
	case $DRIVER/$1 in
	rust_pmem/add) echo "add $2 4096" >"$ND/$NAMESPACE/errors/list" ;;
	rust_pmem/poison) echo "poison $2 4096" >"$POISON/$NAMESPACE" ;;
	*) echo "$(($2 / 512)) 8" >"/sys/block/$DISK/badblocks" ;;
	esac
}

# works OFFSET: the page is good again, and holds what it held. With C it has to be written.
works() {
	case $DRIVER in
	rust_pmem) echo "drop $1 4096" >"$ND/$NAMESPACE/errors/list" ;;
	*) dd if=/tmp/saved."$1" of="/dev/$DISK" bs=4k count=1 oflag=direct,seek_bytes seek="$1" conv=notrunc status=none ;;
	esac
}

# answer COMMAND…: its errno in words, or "done".
answer() {
	answer_status=0
	answer_text=$("$@" 2>&1) || answer_status=$?
	case $answer_text in
	*'Input/output error'*) echo 'Input/output error' ;;
	*) [ $answer_status -eq 0 ] && echo "done" || printf '%s (status %d)\n' "$answer_text" $answer_status ;;
	esac
}

# page_of FILE NUMBER: whether it can be read.
page_of() {
	answer pmem-io pread "$1" --offset $(($2 * 4096)) --length 4K
}
