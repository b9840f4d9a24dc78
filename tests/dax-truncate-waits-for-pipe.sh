#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Truncating, punching or removing a DAX file waits while a pipe holds its pages, so that no other file gets them.
# compare
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	exec 3<&-
	rm -f /tmp/dax-truncate-waits-for-pipe.pipe
	umount $MNT 2>/dev/null
}

# test_waits NAME WHERE COMMAND…: runs the command while a pipe holds 64 KiB of the file; it waits in the function WHERE
# of the kernel.
test_waits() {
	name=$1 where=$2
	shift 2
	fallocate -l 2M $MNT/file
	pmem-io map --length 64K $MNT/file store >/dev/null
	pmem-io map --length 64K $MNT/file vmsplice-out >&3
	"$@" &
	pid=$!
	# Until it waits or has ended.
	tries=0
	until grep -q "$where" /proc/$pid/stack 2>/dev/null || [ ! -e /proc/$pid ] || [ $((tries += 1)) -gt 100 ]; do
		sleep 0.1
	done
	is "$name: waits" "$(grep -o "$where" /proc/$pid/stack 2>/dev/null)" "$where"
	is "$name: the pipe has the bytes" "$(head -c 65536 <&3 | md5sum)" "$wanted"
	status=0
	wait $pid || status=$?
	is "$name: then it is done" $status 0
}

plan 18
load_driver
truncate -s 64K /tmp/dax-truncate-waits-for-pipe.file
pmem-io fill /tmp/dax-truncate-waits-for-pipe.file
wanted=$(md5sum </tmp/dax-truncate-waits-for-pipe.file)
rm /tmp/dax-truncate-waits-for-pipe.file
mkfifo /tmp/dax-truncate-waits-for-pipe.pipe
exec 3<>/tmp/dax-truncate-waits-for-pipe.pipe
disk=$(labelled_disk -m fsdax -M mem)
for type in ext4 xfs; do
	make_fs $type "$disk"
	mount_dax "$disk"
	test_waits "$type: truncating" ${type}_wait_dax_page truncate -s 0 $MNT/file
	test_waits "$type: punching a hole" ${type}_wait_dax_page fallocate -p -o 0 -l 4K $MNT/file
	test_waits "$type: removing" dax_break_layout_final rm $MNT/file
	umount $MNT
done
