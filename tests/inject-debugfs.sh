#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# With inject=1, root can poison memory of any provider through debugfs, and do nothing else with that file.
#
# Without the parameter there is no such file, and under lockdown, which ends with the guest, it cannot be opened.
# quick
# vm: three
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
	unload_driver
}

# poison DEVICE OFFSET LENGTH: the error.
poison() {
	env echo "poison $2 $3" 2>&1 >"$FOLDER/$1" | sed 's/.*: //'
}

# test_poison PROVIDER NAMESPACE: poisons a page of a DAX file that is mapped.
test_poison() {
	ns=$2
	disk=$(disk_of "$ns")
	device=$(device_of_disk "$disk")
	file=$FOLDER/$device
	make_fs ext4 "$disk" -O ^has_journal
	mount_dax "$disk"
	fallocate -l 4M $MNT/file
	pmem-io fill $MNT/file
	at=$(($(pmem-io phys $MNT/file --offset 400K) - $(cat "$ND/$ns/resource")))

	pmem-io map $MNT/file store=0+1M "run=echo poison $at 4096 >$file" sigbus >/tmp/sigbus
	is "$1: a process that has the page mapped gets SIGBUS" "$(tail -n 1 /tmp/sigbus)" 'sigbus: 1 code 5 lsb 12 address 0x64000'
	is "$1: it is listed" "$(cat "$ND/$device/errors/list")" "$at 4096 injected"
	is "$1: a mapping loses it alone" "$(pmem-io map-read $MNT/file)" "page 100 code 4 lsb 12 address 0x64000"
	check_fails "$1: a write of a part of it" pmem-io pwrite $MNT/file --offset 409700 --length 100
	check "$1: dropped from its list" sh -c "echo drop $at 4096 >$ND/$device/errors/list"
	check "$1: all of the file is there" pmem-io verify $MNT/file
	check "$1: in a mapping as well" pmem-io map-verify $MNT/file
	becomes "$1: nothing is listed" '' cat "$ND/$device/errors/list" "/sys/block/$disk/badblocks" "$ND/$ns/../badblocks"
	check_fails "$1: a part of a page is not poisoned" sh -c "echo poison $at 512 >$file"
	for command in "add $at 512" "drop $at 512" "add $at 4096 injected"; do
		is "$1: $command is no command of that file" "$(env echo "$command" 2>&1 >"$file" | sed 's/.*: //')" 'Invalid argument'
	done
	is_empty "$1: nothing is listed by them" cat "$ND/$device/errors/list"
	umount $MNT
}

[ "$DRIVER" = rust_pmem ] || skip_all "C can't inject"
mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
mountpoint -q /sys/kernel/security || mount -t securityfs none /sys/kernel/security
if [ "$STAGE" = 2 ]; then
	plan 1
	load_driver
	raw_disk "$(nfit_ns)" >/dev/null
	check "lockdown has ended" grep -qF '[none]' /sys/kernel/security/lockdown
	exit
fi
plan 49
FOLDER=/sys/kernel/debug/rust_pmem
load_driver_anew
for ns in "$(nfit_ns)" "$(e820_ns)" "$(virtio_ns)"; do
	raw_disk "$ns" >/dev/null
done
check_fails "without inject=1, there is no such file" test -e $FOLDER
unload_driver
insmod "$MODULE" inject=1
settle
echo 1 >/proc/sys/vm/memory_failure_early_kill
ns=$(nfit_ns)
is "without struct pages" "$(poison "$ns" 1048576 4096)" "Operation not supported"
make_namespace -e "$ns" -m sector >/dev/null
is "in sector mode" "$(poison "$(device_of_disk "$(disk_of "$ns")")" 1048576 4096)" "Operation not supported"
device=$(device_of_disk "$(make_fsdax "$ns" dev)")
data=$(($(cat "$ND/$device/resource") - $(cat "$ND/$ns/resource")))
is "the info block" "$(poison "$device" 4096 4096)" "Invalid argument"
is "the memmap and the data" "$(poison "$device" $((data - 4096)) 8192)" "Invalid argument"
is_empty "nothing of it is listed" cat "$ND/$device/errors/list"
make_fsdax "$ns" >/dev/null
is "with it, for each namespace" "$(find $FOLDER -type f -perm 200 | wc -l)" 3
test_poison NFIT "$(nfit_ns)"
test_poison e820 "$(e820_ns)"
test_poison virtio-pmem "$(virtio_ns)"
namespace=$(e820_ns)
echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/unbind"
check_fails "unbound, its file is gone" test -e "$FOLDER/$namespace"
echo integrity >/sys/kernel/security/lockdown
file=$FOLDER/$(virtio_ns)
check "under lockdown, the file is there" test -e "$file"
is "but it can't be opened" "$(sh -c "echo poison $((1 << 20)) 4096 >$file" 2>&1 | sed 's/.*: //')" "Operation not permitted"
# The tests that follow load modules.
host reboot
