#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A repairing write whose source memory is not present blocks only itself: other repairs, fsync and zeroing proceed.
# vm: three 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

cleanup() {
	umount $MNT 2>/dev/null
	forget_errors "${disk:-}"
	unload_driver
}

# namespace_offset_of FILE OFFSET: the offset of that byte in the namespace, which is in raw mode.
namespace_offset_of() {
	echo $(($(pmem-io phys "$1" --offset "$2") - $(cat "$ND/$namespace/resource")))
}

# run_other NAME COMMAND…: writes its exit status to /tmp/stall.NAME, or "blocked" if it has not ended after 5 s.
run_other() {
	other_name=$1
	shift
	{
		other_status=0
		"$@" >/dev/null 2>&1 || other_status=$?
		echo "$other_status" >"/tmp/stall.new.$other_name"
		# Has no effect after the time-out.
		ln "/tmp/stall.new.$other_name" "/tmp/stall.$other_name" 2>/dev/null || :
	} &
	wait_for 30 test -e "/tmp/stall.$other_name" || echo blocked >"/tmp/stall.$other_name"
}

file_is_written() {
	pmem-io verify $MNT/file --length 400K &&
		pmem-io verify $MNT/file --offset 400K --length 4K --seed 2 &&
		pmem-io verify $MNT/file --offset 404K
}

other_is_written() {
	pmem-io verify $MNT/other --length 64K --seed 2 &&
		pmem-io verify $MNT/other --offset 64K --length 64K &&
		pmem-io verify $MNT/other --offset 128K --length 4K --seed 3 &&
		pmem-io verify $MNT/other --offset 132K
}

# Runs while the write waits.
if [ "${1:-}" = others ]; then
	trap - EXIT
	run_other repair dd if=/dev/zero of="/dev/$disk" bs=4k count=1 seek=$((free / 4096)) oflag=direct conv=notrunc
	run_other fsync pmem-io fill $MNT/other --length 64K --seed 2
	run_other zeroes fallocate -z -o $((free + 8192)) -l 4096 "/dev/$disk"
	run_other file pmem-io pwrite $MNT/other --offset 128K --length 4K --seed 3
	[ "$DRIVER" = nd_pmem ] || run_other drop sh -c "echo drop $((free + 16384)) 4096 >$list"
	exit
fi

need pmem-io
case $DRIVER in
rust_pmem) plan 10 ;;
*) plan 9 ;;
esac
load_driver
namespace=$(e820_ns)
disk=$(raw_disk "$namespace")
make_fs ext4 "$disk"
mount_dax "$disk"
for name in file other free; do
	fallocate -l 1M $MNT/$name
	pmem-io fill $MNT/$name
done
free=$(namespace_offset_of $MNT/free 512K)
list=$(errors_list_of "$namespace")
for bad in "$(namespace_offset_of $MNT/file 400K)" "$(namespace_offset_of $MNT/other 128K)" $free $((free + 8192)); do
	echo "$((bad / 512)) 8" >"/sys/block/$disk/badblocks"
done
[ "$DRIVER" = nd_pmem ] || echo "add $((free + 16384)) 4096" >"$list"
sync
is "pages are bad" "$(places "$disk" read --offset "$free" --stride 8K --count 2)" 'Input/output error: 2'
export free disk list
rm -f /tmp/stall.*
is "the write ends when its source is there" \
	"$(pmem-io pwrite-stalled $MNT/file --offset 400K --length 4K --seed 2 --run "sh '$(realpath "$0")' others" 2>/tmp/stall.errors)" 4096
sed 's/^/# /' /tmp/stall.errors
is "meanwhile, another page is repaired by the block device" "$(cat /tmp/stall.repair)" 0
is "meanwhile, another file is written and made durable" "$(cat /tmp/stall.fsync)" 0
is "meanwhile, a bad page is zeroed" "$(cat /tmp/stall.zeroes)" 0
is "meanwhile, a page of another file is repaired" "$(cat /tmp/stall.file)" 0
[ "$DRIVER" = nd_pmem ] || is "meanwhile, an error is dropped" "$(cat /tmp/stall.drop)" 0
wait
check "the file holds what was written" file_is_written
check "so does the other" other_is_written
is_empty "nothing is listed" cat "/sys/block/$disk/badblocks"
