# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# stress-ng's stressors of mapped files, and of memory that is moved, merged, locked, pinned and passed on, pass on DAX
# files.

for type in ext4 xfs; do
	file_system "$type"
	for stressor in 'mmap 1 --mmap-file' 'mmap 1 --mmap-file --mmap-async' 'mmap 1 --mmap-file --mmap-odirect' 'mmapfork 1' \
		'mmapaddr 1' 'mmapfiles 1' 'mmaptorture 1' 'msync 1' 'msyncmany 1' 'mremap 1' 'remap 1' 'madvise 1' 'mlock 1' \
		'mincore 1' 'fault 1' 'vm 1 --vm-bytes 64M' 'vm-splice 1' 'vm-rw 1' 'vm-segv 1' 'userfaultfd 1' 'shm 1' 'rmap 1' \
		'splice 1' 'sendfile 1' 'aiol 1' 'prefetch 1' 'sync-file 1'; do
		# shellcheck disable=SC2086 # words
		stress-ng --timeout 2 --verify --temp-path /mnt --no-rand-seed --${stressor% 1*} 1 ${stressor#* 1}
	done
	unmount
done
