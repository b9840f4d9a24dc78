# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# fio's libpmem engine reads back what it wrote.

file_system ext4
for pattern in write randwrite randrw; do
	fio --name="$pattern" --rw="$pattern" --ioengine=libpmem --directory=/mnt --size=64M --bs=4k,64k --direct=1 \
		--verify=crc32c --verify_fatal=1
	fio --name="$pattern" --rw="$pattern" --ioengine=libpmem --directory=/mnt --size=64M --bsrange=512-256k --direct=1 \
		--sync=1 --verify=crc32c --verify_fatal=1
done
unmount
