#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A program with its loader and libraries runs from a DAX file system; stores to private pages do not change the files.
# compare
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# test_program NAME TYPE DISK
test_program() {
	make_fs "$2" "$3"
	mount_dax "$3"
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
	tries=0
	until grep -q "r-xp.*$MNT/jq" /proc/$pid/maps || [ $((tries += 1)) -gt 100 ]; do
		sleep 0.1
	done
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

plan 12
need ldd jq
load_driver
disk=$(labelled_disk -m fsdax -M mem)
test_program ext4 ext4 "$disk"
test_program XFS xfs "$disk"
test_program e820 ext4 "$(e820_disk)"
