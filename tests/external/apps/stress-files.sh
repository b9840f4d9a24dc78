# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# stress-ng's class of files: each of its stressors by itself, verifying what it can, on DAX files.

for type in ext4 xfs; do
	file_system "$type"
	stress-ng --class filesystem --sequential 1 --timeout 1 --verify --temp-path /mnt --no-rand-seed
	unmount
done
