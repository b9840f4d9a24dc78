#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A 2 MiB mapping is split when a part of it changes, and is huge again when all of it is mapped anew.
# compare
# kernel: transparent_hugepage
# vm: labels
. "$(dirname "$0")/lib/test.sh"

trace=/sys/kernel/tracing

cleanup() {
	echo 0 >$trace/events/fs_dax/enable
	umount $MNT 2>/dev/null
	rm -f /tmp/dax-huge-page-split.*
}

# run_steps STEP…: maps a new file of 4 MiB in one process, stores to all pages, and performs the steps. Prints the
# faults since the previous `faults` step, and refused accesses, on one line.
run_steps() {
	rm -f $MNT/file
	fallocate -l 4M $MNT/file
	pmem-io map $MNT/file store "$faults" "$@" "$faults" 2>&1 | grep -v ' pages$\|: ok$' | sed '1d' | tr '\n' ';'
}

# test_split TYPE
test_split() {
	make_fs "$1" "$disk"
	mount_dax "$disk"
	is "$1: nothing is done" "$(run_steps load)" "0 huge, 0 small;"
	is "$1: mprotect of a part" "$(run_steps read-only=64K+64K load)" "0 huge, 512 small;"
	is "$1: and back, the pages are what they were" "$(run_steps read-only=64K+64K load writable "$faults" store)" \
		"0 huge, 512 small;0 huge, 512 small;"
	is "$1: and back, forgotten and found anew" "$(run_steps read-only=64K+64K load writable forget "$faults" store)" \
		"0 huge, 512 small;2 huge, 0 small;"
	is "$1: munmap of a part" "$(run_steps unmap=64K+64K verify=0+64K verify=128K+3968K)" "0 huge, 496 small;"
	is "$1: MADV_DONTNEED of a part" "$(run_steps forget=64K+64K verify)" "1 huge, 0 small;"
	# The kernel unmaps all of the file when it frees blocks of it.
	is "$1: a page punched out" "$(run_steps "run=fallocate -p -o 1M -l 4K $MNT/file" verify=0+1M load=1M+4K verify=1028K+3068K)" \
		"1 huge, 512 small;"
	is "$1: punched out and stored to" "$(run_steps "run=fallocate -p -o 1M -l 4K $MNT/file" store verify)" "1 huge, 512 small;"
	is "$1: 2 MiB punched out, allocated and stored to" \
		"$(run_steps "run=fallocate -p -o 2M -l 2M $MNT/file && fallocate -o 2M -l 2M $MNT/file" store verify)" \
		"2 huge, 0 small;"
	is "$1: truncated to 3 MiB" "$(run_steps "run=truncate -s 3M $MNT/file" verify=0+3M "$faults" load=3M+4K)" \
		"1 huge, 256 small;page 768 code 2 lsb 0 address 0x300000;load: 1 pages, 1 refused, 0 not the pattern;0 huge, 0 small;"
	is "$1: truncated to 2 MiB, made longer and stored to" \
		"$(run_steps "run=truncate -s 2M $MNT/file && fallocate -l 4M $MNT/file" store verify)" \
		"2 huge, 0 small;"
	umount $MNT
}

plan 22
load_driver
disk=$(labelled_disk -m fsdax -M mem)
cat >/tmp/dax-huge-page-split.faults <<'EOF'
printf '%d huge, %d small\n' "$(grep -c 'dax_pmd_fault_done: .*NOPAGE' /sys/kernel/tracing/trace)" \
	"$(grep -c 'dax_pte_fault_done: .*NOPAGE' /sys/kernel/tracing/trace)"
echo >/sys/kernel/tracing/trace
EOF
faults="run=sh /tmp/dax-huge-page-split.faults"
echo 1 >$trace/events/fs_dax/enable
test_split ext4
test_split xfs
