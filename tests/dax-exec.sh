#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A program with its loader and libraries runs from a DAX file system; stores to private pages do not change the files.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# wait_until_mapped: until the child of the shell, whose pid is $pid, has called exec, and its loader has mapped the program.
wait_until_mapped() {
	tries=0
	until grep -q "r-xp.*$1" /proc/$pid/maps || [ $((tries += 1)) -gt 100 ]; do
		sleep 0.1
	done
}

# test_program NAME TYPE DISK: 4 subtests, and 5 more on ext4.
test_program() {
	make_fs "$2" "$3"
	mount_dax "$3"
	[ "$1" != ext4 ] || test_running_file
	program=$(command -v jq)
	loader=
	for file in $(ldd "$program" | grep -o '/[^ ]*') "$program"; do
		cp "$file" $MNT/
		case $file in
		*/ld-linux*) loader=$MNT/${file##*/} ;;
		esac
	done
	sync
	is "$1: the right answer" "$(printf '[1,2,3]' | "$loader" --library-path $MNT $MNT/jq add)" 6
	"$loader" --library-path $MNT $MNT/jq -n 'last(range(1000000000000))' &
	pid=$!
	wait_until_mapped $MNT/jq
	is "$1: all of its code is mapped from there" "$(grep ' r-xp ' /proc/$pid/maps | grep -vc " $MNT/\|\[")" 0
	record "$1: how its code is mapped" "$(sed -n "/r-xp.*\/jq$/,/^VmFlags/p" /proc/$pid/smaps | grep 'VmFlags\|KernelPageSize')"
	kill $pid
	wait $pid 2>/dev/null || :
	changed=
	for file in $(ldd "$program" | grep -o '/[^ ]*') "$program"; do
		cmp "$file" "$MNT/${file##*/}" || changed=yes
	done
	check "$1: no file has changed" test -z "$changed"
	umount $MNT
}

# test_running_file: 5 subtests.
test_running_file() {
	program=$(command -v sha256sum)
	cp "$program" $MNT/program
	is "it runs and gives the right answer" "$(seq 10000 | $MNT/program)" "$(seq 10000 | sha256sum)"
	check "its file has not changed" cmp "$program" $MNT/program
	$MNT/program >/dev/null </dev/zero &
	pid=$!
	wait_until_mapped $MNT/program
	check_fails "its file can't be written while it runs" sh -c "echo x >>$MNT/program"
	check "its code is mapped from the file" grep -q "r-xp.*$MNT/program" /proc/$pid/maps
	kill $pid
	wait $pid 2>/dev/null || :
	check "then it can" sh -c "echo x >>$MNT/program"
}

plan 17
need ldd jq
load_driver
# With the struct pages on the device; those of e820 memory are in RAM.
disk=$(labelled_disk -m fsdax -M dev)
test_program ext4 ext4 "$disk"
test_program XFS xfs "$disk"
test_program e820 ext4 "$(e820_disk)"
