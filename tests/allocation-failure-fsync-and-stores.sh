#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# With a fault at any one allocation, fsync on virtio-pmem, a repair in sector mode and a store to a DAX mapping fail or succeed wholly.
# debug
# vm: no-debug
# timeout: 600
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"
. "$(dirname "$0")/lib/dax-faults.sh"

# check_fsync NAME [ARGUMENTS OF pmem-io fail-nth…]: fsync of the disk of virtio-pmem. It succeeds if the host has flushed, and only then.
check_fsync() {
	fsync_name=$1
	shift
	check_faults "$fsync_name" "ok; ok 1|$ERRORS; ok 0" "fsync=$file" "$@" --before "run=$count >/tmp/flushes" \
		--then "run=expr \$($count) - \$(cat /tmp/flushes) || :"
}

# check_store NAME OFFSET OLD NEW BEFORE: a store at this offset to a mapping of 2 MiB. From 4 MiB on, where the file's page cache needs
# memory for an entry, 4 MiB have the checksum OLD before it, and NEW afterwards. The code of the store itself has been faulted in.
check_store() {
	check_faults "$1" "ok; ok $4|SIGBUS, code 2; ok $3" "store=$MNT/file=$2=2M" --before "store=$MNT/other=0=4K" --before "run=$5" \
		--then "pread=$MNT/file=4M=4M"
}

# stored OFFSET: the checksum of standard input, 4 MiB, with a page of 0xff at this offset.
stored() {
	cat >/tmp/stored
	head -c 4096 /dev/zero | tr '\0' '\377' | dd of=/tmp/stored bs=4k seek=$(($1 / 4096)) conv=notrunc status=none
	checksum </tmp/stored
}

need_faults
plan 15
provide size=$((96 << 20)) pages=1 dimm=0

virtio=$(basename "$(readlink -f "$ND/$(virtio_ns)/../../..")")
file=/dev/$(disk_of "$(virtio_ns)")
count=". $TESTS/lib/flush-count.sh; virtio_flushes $virtio"
check_fsync "virtio-pmem: fsync"
# Without a file that stays open, the last close would write the page back.
exec 5<"$file"
check_fsync "virtio-pmem: fsync of a page of the page cache" --before "run=dd if=/dev/urandom of=$file bs=4k count=1 conv=notrunc status=none"
exec 5<&-

disk=$(make_namespace -e "$NAMESPACE" -m fsdax | jq -r .blockdev)
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 2M $MNT/other
fallocate -l 8M $MNT/file
truncate -s 8M /tmp/pattern
pmem-io fill /tmp/pattern
head -c 4M /dev/zero >/tmp/zeros
tail -c 4M /tmp/pattern >/tmp/old
zeros=$(checksum </tmp/zeros)
old=$(checksum </tmp/old)
# Blocks that are not written yet, and whose mappings are forgotten.
new="fallocate -z -o 4M -l 4M $MNT/file"
written="$new && pmem-io fill --offset 4M --length 4M $MNT/file"
trace_faults
# A page of 2 MiB would begin before the mapping.
check_store "a store to a new block" 4100K "$zeros" "$(stored 4096 </tmp/zeros)" "$new"
check_store "a store to a written block" 4100K "$old" "$(stored 4096 </tmp/old)" "$written"
check "faults were of 4 KiB" grep -q 'dax_pte_fault_done: .* pgoff 0x401 .*NOPAGE' $FAULTS/trace
check_store "a store to 2 MiB of new blocks" 4M "$zeros" "$(stored 0 </tmp/zeros)" "$new"
check_store "a store to 2 MiB of written blocks" 4M "$old" "$(stored 0 </tmp/old)" "$written"
untrace_faults
if kernel_has transparent_hugepage; then
	check "faults were of 2 MiB" grep -q 'dax_pmd_fault_done: .*NOPAGE' $FAULTS/trace
else
	skip "faults were of 2 MiB" "this kernel has no huge pages"
fi
# With any bad block on the disk, the driver looks at each range.
provider bad $(((96 << 20) - 4096))+4096
check "the end of the disk is bad" grep -q . "/sys/block/$disk/badblocks"
check_store "a store beside a bad block" 4100K "$old" "$(stored 4096 </tmp/old)" "$written"
umount $MNT
check "the file system" e2fsck -fn "/dev/$disk"

# Each write has to repair the block that the one before has freed; a BTT has a free block for each processor. The bus splits an
# entry of its list for that, and forgets the second half if it has no memory.
provider_cleanup
provide size=$((32 << 20)) dimm=0
disk=$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)
file=/dev/$disk
device=$(device_of_disk "$disk")
zeros=$(head -c 4096 /dev/zero | checksum)
taskset -cp 0 $$ >/dev/null
check "sector mode: two blocks that will be bad are written" dd if=/dev/zero of="$file" bs=4k seek=2047 count=2 oflag=direct status=none
list=$ND/$device/errors/list
listed=
set -- --before "write=/sys/module/pmem_provider/parameters/bad=4M+16M" --then "-pread=$file=8M=4K"
if [ "$DRIVER" = rust_pmem ]; then
	# Before, the list is emptied: an entry that an earlier try has left would have what this one loses. After it, all but the
	# repaired block is listed, after a rebind as well.
	listed="; ok; ok; ok 16773120"
	set -- --before "write=$list=drop 0 $((32 << 20))" --before "write=$UNBIND=$device" --before "write=$BIND=$device" "$@" \
		--then "write=$UNBIND=$device" --then "write=$BIND=$device" --then "run=awk '{ n += \$2 } END { print n }' $list"
fi
check_faults "sector mode: a write that repairs a block" "ok 4096; ok $zeros$listed" "pwrite=$file=8M=4K" "$@"
check "sector mode: the next write" dd if=/dev/zero of="$file" bs=4k seek=2048 count=1 oflag=direct status=none
is "sector mode: and read" "$(dd if="$file" bs=4k skip=2048 count=1 iflag=direct status=none | checksum)" "$zeros"
