# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# Each of stress-ng's file stressors passes on DAX files, with verification where it has one.

for type in ext4 xfs; do
	file_system "$type"
	stress-ng --class filesystem --sequential 1 --timeout 1 --verify --temp-path /mnt --no-rand-seed
	unmount
done
