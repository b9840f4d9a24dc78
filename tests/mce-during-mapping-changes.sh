#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks in a file while processes fork, protect, discard, unmap and truncate its mapping cost only the pages that failed.
# vm: labels 2
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/dax-faults.sh"

# A page in each of four huge pages: recovery finds the processes that map a huge page for its first failure only.
STRIDE=$(((2 << 20) + (64 << 10)))
SIZE=8M
PAGES=4

cleanup() {
	stop_processes
	untrace_faults
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	umount $MNT 2>/dev/null
	rm -f /tmp/changes.*
}

# start_changing FILE STEPS…: starts two processes that map a file, do this to the mapping, and unmap it, again and again.
start_changing() {
	changed=$1 step=${2%%=*}
	shift
	for number in 1 2; do
		pmem-io map "$changed" --length $SIZE --populate --seconds 600 "$@" >/tmp/changes.$number 2>&1 &
		processes="$processes $!"
	done
	for number in 1 2; do
		wait_for 60 has_repeated $number "$step" || return
	done
}

# has_repeated NUMBER STEP: the process has done this step twice.
has_repeated() {
	[ "$(grep -c "^$2: " "/tmp/changes.$1")" -ge 2 ]
}

# start_truncating FILE: starts to truncate the file to its first half and to make it whole again, again and again.
start_truncating() {
	(
		# Not in the middle of a change.
		trap 'exit 0' TERM
		while :; do
			truncate -s 4M "$1"
			truncate -s $SIZE "$1"
		done
	) &
	processes="$processes $!"
}

stop_processes() {
	# shellcheck disable=SC2086 # several words
	kill $processes 2>/dev/null || :
	# shellcheck disable=SC2086
	wait $processes 2>/dev/null || :
	processes=
}

# all_are_at_work: none of the processes has ended.
all_are_at_work() {
	for process in $processes; do
		kill -0 "$process" || {
			cat /tmp/changes.*
			return 1
		}
	done
}

# find_pages FILE: finds the addresses of four pages of the file: $pages.
find_pages() {
	pages=
	for page in $(seq 0 $((PAGES - 1))); do
		pages="$pages $(($(pmem-io phys "$1" --offset $((page * STRIDE)))))"
	done
}

# fail_pages: injects a machine check in each of these pages.
fail_pages() {
	dmesg -C
	for page in $pages; do
		host mce "$page"
		# The processors handle one at a time.
		sleep 0.1
	done
}

# all_are_listed: each of these pages is.
all_are_listed() {
	for page in $pages; do
		grep -q "^$(((page - base) / 512)) 8$" "/sys/block/$disk/badblocks" || return
	done
}

# processes_are_signalled: recovery has sent SIGBUS to one that maps a page.
processes_are_signalled() {
	dmesg | grep -q 'Sending SIGBUS to pmem-io'
}

# new_file NAME: makes a file, of pieces of 2 MiB that can be mapped by huge pages.
new_file() {
	fallocate -l $SIZE "$MNT/$1"
	pmem-io map-write "$MNT/$1"
}

# refused_pages FILE: the pages that a new mapping can't read, and the codes of their signals; and those without the pattern.
refused_pages() {
	pmem-io map-verify "$1" | sed 's/page \(.* code .*\) lsb .*/\1/'
}

bad_pages() {
	seq 0 $((STRIDE / 4096)) $(((PAGES - 1) * STRIDE / 4096)) | sed 's/$/ code 4/'
}

# test_change NAME STEPS…: 6 subtests: machine checks while two processes do this to their mappings of a file.
test_change() {
	name="$fs_type, $1" file=$MNT/$1
	shift
	find_pages "$file"
	start_changing "$file" "$@"
	fail_pages
	check "$name: all pages are listed" wait_for 60 all_are_listed
	check "$name: processes are signalled" wait_for 60 processes_are_signalled
	check "$name: the processes go on" all_are_at_work
	stop_processes
	check_fails "$name: they have read nothing but good data" grep '^byte ' /tmp/changes.1 /tmp/changes.2
	is "$name: a new mapping loses these pages alone" "$(refused_pages "$file")" "$(bad_pages)"
	check_written "$name" "$file"
}

# check_written NAME FILE: a subtest: a write repairs the file.
check_written() {
	if [ "$DRIVER" = rust_pmem ]; then
		check "$1: the file is written and read" sh -c "pmem-io fill $2 --seed 2 && pmem-io map-verify $2 --seed 2"
	else
		skip "$1: the file is written and read" "with C, a bus that can't clear poison repairs nothing"
	fi
}

# test_truncate: 4 subtests: the same while the file is truncated.
test_truncate() {
	name="$fs_type, truncate" file=$MNT/truncate
	if [ "$fs_type:$DRIVER" = xfs:nd_pmem ]; then
		for row in "memory fails" "the processes go on" "the file is written and read" "the file system is intact"; do
			skip "$name: $row" "the kernel crashes with C, when XFS zeroes a block whose page is unmapped"
		done
		return
	fi
	# Of half of them the blocks change.
	find_pages "$file"
	start_changing "$file" store
	start_truncating "$file"
	fail_pages
	check "$name: memory fails" wait_for 60 sh -c "dmesg | grep -q 'Memory failure: '"
	check "$name: the processes go on" all_are_at_work
	stop_processes
	truncate -s $SIZE "$file"
	check_written "$name" "$file"
	check "$name: the file system is intact" fs_is_intact
}

# fs_is_intact: all files but those that failed are there, and the file system agrees with itself.
fs_is_intact() {
	pmem-io map-verify $MNT/bystander && umount $MNT && fs_is_whole "$fs_type" "$disk"
}

need pmem-io xfs_repair
processes="" disks=""
plan 58
load_driver
# C repairs nothing, so each file system has a disk of its own.
disks=$(labelled_disk -m fsdax -M mem -s 160M)
# XFS takes no less than 300 MB.
disks="$disks $(make_namespace -r "$(labelled_region)" -m fsdax -M mem -s 320M | jq -r .blockdev)"
echo 1 >/proc/sys/vm/memory_failure_early_kill

for disk in $disks; do
	base=$(($(cat "/sys/block/$disk/device/resource")))
	[ "$DRIVER" != rust_pmem ] || echo 1 >"/sys/block/$disk/errors/overwrite_heals"
	case $disk in
	"${disks%% *}") fs_type=ext4 ;;
	*) fs_type=xfs ;;
	esac
	make_fs $fs_type "$disk"
	mount_dax "$disk"
	trace_faults
	for name in fork protect discard unmap truncate bystander; do
		new_file $name
	done
	if kernel_has transparent_hugepage; then
		is "$fs_type: the files are mapped by huge pages" "$(count_faults)" "24 of 2 MiB, 0 of 4 KiB"
	else
		skip "$fs_type: the files are mapped by huge pages" "the kernel has none"
	fi
	untrace_faults
	test_change fork fork verify
	test_change protect store read-only=0+2M verify writable
	test_change discard forget verify
	test_change unmap unmap=4M+4M verify=0+4M
	test_truncate
done
