#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks in a file while processes fork, protect, discard, unmap and truncate its mapping cost only the pages that failed.
#
# With mce=0, the processors don't wait for each other in the handler: at this load, emulated ones sometimes wait there until the
# kernel panics, with either driver.
# vm: --bare --nvdimm size=512M,labels --cpus 2 --append mce=0
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

STRIDE=$((256 << 10))
PAGES=8

cleanup() {
	stop_processes
	echo 0 >/proc/sys/vm/memory_failure_early_kill
	umount $MNT 2>/dev/null
	forget_errors "$disk"
	unload_driver
	rm -f /tmp/changes.*
}

# start_changing FILE STEPS…: starts two processes that map 2 MiB of a file, do this to the mapping, and unmap it, again and again.
start_changing() {
	changed=$1 step=${2%%=*}
	shift
	for number in 1 2; do
		pmem-io map "$changed" --length 2M --populate --seconds 600 "$@" >/tmp/changes.$number 2>&1 &
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

# start_truncating FILE: starts to truncate the file to nothing and to allocate it again, again and again.
start_truncating() {
	while :; do
		truncate -s 0 "$1"
		fallocate -l 2M "$1"
	done &
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

# fail_pages: injects a machine check in every 64th page from address $start on, each after the last one is handled.
fail_pages() {
	for page in $(seq 0 $((PAGES - 1))); do
		host mce $((start + page * STRIDE))
		sleep 0.1
	done
}

none_is_unlisted() {
	first=$(((start - base) / STRIDE))
	[ -z "$(unlisted_pages "/sys/block/$disk/badblocks" $STRIDE $first $((first + PAGES)))" ]
}

# new_file NAME: makes a file of 2 MiB, in one piece and at a multiple of 2 MiB.
new_file() {
	fallocate -l 2M "$MNT/$1"
	pmem-io map-write "$MNT/$1"
}

# refused_pages FILE: the pages that a new mapping can't read, and the codes of their signals; and those without the pattern.
refused_pages() {
	pmem-io map-verify "$1" | sed 's/page \(.* code .*\) lsb .*/\1/'
}

every_64th() {
	seq 0 64 511 | sed 's/$/ code 4/'
}

# test_change NAME STEPS…: 5 subtests: machine checks while two processes do this to their mappings of a file.
test_change() {
	name="$fs_type, $1" file=$MNT/$1
	shift
	start_changing "$file" "$@"
	start=$(($(pmem-io phys "$file")))
	fail_pages
	check "$name: all pages are listed" wait_for 10 none_is_unlisted
	check "$name: the processes go on" all_are_at_work
	stop_processes
	check_fails "$name: they have read nothing but good data" grep '^byte ' /tmp/changes.1 /tmp/changes.2
	is "$name: a new mapping loses these pages alone" "$(refused_pages "$file")" "$(every_64th)"
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

# test_truncate: 3 subtests: the same while the file is truncated.
test_truncate() {
	name="$fs_type, truncate" file=$MNT/truncate
	# The address of its blocks, which it may lose.
	start=$(($(pmem-io phys "$file")))
	start_changing "$file" load
	start_truncating "$file"
	fail_pages
	check "$name: the processes go on" all_are_at_work
	stop_processes
	fallocate -l 2M "$file"
	check_written "$name" "$file"
	check "$name: the file system is intact" fs_is_intact
}

# fs_is_intact: all files but those that failed are there, and the file system agrees with itself.
fs_is_intact() {
	pmem-io map-verify $MNT/bystander && umount $MNT || return
	case $fs_type in
	ext4) e2fsck -f -n "/dev/$disk" ;;
	xfs) xfs_repair -n "/dev/$disk" ;;
	esac >/tmp/changes.fsck 2>&1 || {
		cat /tmp/changes.fsck
		return 1
	}
}

need pmem-io xfs_repair
processes=
plan 46
load_driver
disk=$(labelled_disk -m fsdax -M mem)
base=$(($(cat "/sys/block/$disk/device/resource")))
[ "$DRIVER" != rust_pmem ] || echo 1 >"/sys/block/$disk/errors/overwrite_heals"
echo 1 >/proc/sys/vm/memory_failure_early_kill

for type in ext4 xfs; do
	make_fs $type "$disk"
	mount_dax "$disk"
	for name in fork protect discard unmap truncate bystander; do
		new_file $name
	done
	test_change fork fork verify
	test_change protect store read-only=0+2M writable
	test_change discard forget verify
	test_change unmap unmap=1M+1M verify=0+1M
	test_truncate
	forget_errors "$disk"
done
