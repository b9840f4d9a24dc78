#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# vmsplice of a DAX mapping passes its pages to a pipe with the right data.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

plan 3
need fio strace
load_driver
disk=$(labelled_disk -m fsdax -M mem)
make_fs ext4 "$disk"
mount_dax "$disk"
# Larger than fio's buffer, which begins at the start of the file.
fallocate -l 2M $MNT/buffer
# The splice engine of fio gives its buffer to a pipe by vmsplice.
check "written by vmsplice and splice" strace -f --seccomp-bpf -o /tmp/dax-vmsplice.trace -e trace=vmsplice fio --name=job --filename=$MNT/copy --rw=write --size=256k --bs=64k \
	--ioengine=splice --mem=mmapshared:$MNT/buffer --minimal
check "it was vmsplice" grep -q 'vmsplice(.*) = 65536' /tmp/dax-vmsplice.trace
check "the last block is the buffer" sh -c "tail -c 65536 $MNT/copy | cmp -n 65536 - $MNT/buffer"
rm -f /tmp/dax-vmsplice.trace
