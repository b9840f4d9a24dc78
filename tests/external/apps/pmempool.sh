# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# PMDK pools can be made and checked; a corrupt pool is detected and repaired.

file_system ext4
for kind in obj log 'blk 512'; do
	rm -f /mnt/pool
	# shellcheck disable=SC2086 # words
	pmempool create --size 64M $kind /mnt/pool
	pmempool info /mnt/pool
	pmempool check -v /mnt/pool
	# The checksum of the header.
	dd if=/dev/zero of=/mnt/pool bs=8 seek=511 count=1 conv=notrunc
	if pmempool check -v /mnt/pool; then
		echo "a damaged pool is consistent"
		exit 1
	fi
	# pmempool does not repair pools of objects.
	[ "$kind" != obj ] || continue
	pmempool check -v -r -a -y /mnt/pool
	pmempool check -v /mnt/pool
done
unmount
