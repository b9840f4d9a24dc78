#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# RDMA (rxe on loopback) cannot register memory of a DAX file, and can register memory of device DAX.
# compare
# kernel: device_dax rdma_rxe
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	rdma link delete rxe0 2>/dev/null
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
	rm -f /tmp/dax-rdma.*
}

# rdma_write FILE [TRACER…]: writes 64 KiB from the client's buffer, at the start of the file, to the server's, at 1
# MiB; prints the exit status of both.
rdma_write() {
	file=$1
	shift
	rm -f /tmp/dax-rdma.*
	ib_write_bw -d rxe0 -F -n 5 -s 65536 --mmap="$file" --mmap-offset=1048576 >/tmp/dax-rdma.server 2>&1 &
	server=$!
	tries=0
	until ss -ltn | grep -q :18515 || [ $((tries += 1)) -gt 100 ]; do
		sleep 0.1
	done
	client=0
	"$@" timeout 120 ib_write_bw -d rxe0 -F -n 5 -s 65536 --mmap="$file" 127.0.0.1 >/tmp/dax-rdma.client 2>&1 || client=$?
	timeout 60 tail --pid=$server -f /dev/null || kill $server
	status=0
	wait $server || status=$?
	printf 'client %d, server %d' $client $status
}

# check_refused NAME FILE ERRNO
check_refused() {
	is "$1: nothing is transferred" "$(rdma_write "$2" strace -f -o /tmp/dax-rdma.trace -e trace=ioctl)" "client 1, server 1"
	is "$1: as no memory was registered" "$(grep "Couldn't" /tmp/dax-rdma.client | head -n 1)" "Couldn't allocate MR"
	# libibverbs first asks with a buffer that is too small.
	is "$1: errno" \
		"$(sed -n 's/.* RDMA_VERBS_IOCTL, .* = -1 \([A-Z]*\) .*/\1/p' /tmp/dax-rdma.trace | grep -v ENOSPC | tail -n 1)" "$3"
}

# checksum OFFSET: of 64 KiB of the device.
checksum() {
	pmem-io map --read-only --offset "$1" --length 64K "/dev/$dax" vmsplice-out | cat >/tmp/dax-rdma.bytes
	[ "$(wc -c </tmp/dax-rdma.bytes)" = 65536 ]
	md5sum </tmp/dax-rdma.bytes
}

# test_file TYPE
test_file() {
	make_fs "$1" "$disk"
	mount_dax "$disk"
	fallocate -l 4M $MNT/file
	check_refused "$1" $MNT/file EOPNOTSUPP
	umount $MNT
}

plan 13
need rdma ib_write_bw ss strace
load_driver
modprobe -a rdma_rxe ib_uverbs
rdma link add rxe0 type rxe netdev lo
disk=$(labelled_disk -m fsdax -M mem)
test_file ext4
test_file xfs
make_fs ext4 "$(plain_disk)"
mount "/dev/$(plain_disk)" $MNT
fallocate -l 4M $MNT/file
# Like any file with writeback.
check_refused "no struct pages" $MNT/file EFAULT
umount $MNT
# Aligned to 4 KiB: perftest maps no more than its buffer.
labelled_disk -m devdax -s 32M -a 4096 >/dev/null
modprobe device_dax
settle
dax=$(ndctl list -X -m devdax | jq -r '.[].daxregion.devices[].chardev')
pmem-io map-write --length 2M "/dev/$dax"
is "device DAX: registered, written from and to" "$(rdma_write "/dev/$dax")" "client 0, server 0"
# It has filled the buffers with its own data; the second half is what others write to.
check_fails "device DAX: the client's bytes" pmem-io map-verify --length 64K "/dev/$dax"
checksum=$(checksum 0)
is "device DAX: are the server's" "$(checksum 1088K)" "$checksum"
check "device DAX: what is behind has not changed" pmem-io map-verify --offset 1152K --length 256K "/dev/$dax"
