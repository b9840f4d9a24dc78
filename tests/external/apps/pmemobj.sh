# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# Transactions of libpmemobj are atomic for a process that is killed at any time, and durable once committed.

# shellcheck disable=SC2154 # the folder of these scripts
gcc -O2 -o ledger "$here/ledger.c" -lpmemobj -lpmem
for type in ext4 xfs; do
	file_system "$type"
	./ledger /mnt/pool 20
	pmempool check -v /mnt/pool
	unmount
done
