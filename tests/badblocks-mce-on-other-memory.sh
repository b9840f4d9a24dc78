#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A machine check on ordinary memory or in another namespace changes neither errors/list nor the handling of nowait
# writes.
# quick
# vm: files
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

cleanup() {
	rm -f /tmp/ram
	for ns in $namespace $other; do
		blkdiscard -f -z "/dev/$(disk_of "$ns")" 2>/dev/null
	done
	unload_driver
}

# check_unchanged WHEN: 2 subtests.
check_unchanged() {
	is "$1: a write does not wait" "$(pmem-io pwrite --direct --nowait --offset 4M --length 4K "/dev/$disk" 2>&1)" 4096
	is "$1: errors/list is as it was" "$(sort -n "$list")" "$before"
}

mce_is_handled() {
	dmesg | grep -q "Memory failure: $(printf '0x%x' $((address >> 12))): recovery action for .*: Recovered"
}

other_is_listed() {
	grep -q "$1 4096 machine-check" "$ND/$other/errors/list"
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no errors/list, and refuses requests that must not wait"
need pmem-io
plan 15
load_driver
load_mce_inject
namespace=$(e820_ns)
other=$(namespaces e820 | sed -n 2p)
disk=$(raw_disk "$namespace")
raw_disk "$other" >/dev/null
list=$(errors_list_of "$namespace")
list_every 0 65536 4 | edit_list add "$list" device
list_every 32768 65536 4 | edit_list add "$list" restored
before=$(sort -n "$list")
check_unchanged "before"

head -c 4096 /dev/urandom >/tmp/ram
address=$(($(pmem-io phys /tmp/ram)))
host mce $address
check "the kernel has handled a machine check on ordinary memory" wait_for 60 mce_is_handled
check_unchanged "then"

start=$(cat "$ND/$other/resource")
host mce $((start + 1048576)) 12
check "a machine check on another namespace is handled" wait_for 60 other_is_listed 1048576
check_unchanged "then, too"

dmesg -C
mce_inject $((start + 31 * 65536)) 12
check "the kernel still logs the machine check" wait_for 60 sh -c \
	"dmesg | grep -q 'Hardware Error.*ADDR $(printf %x $((start + 31 * 65536)))'"

# More than one namespace remembers.
mce_inject_pages "$start" 65536 32 650
check "hundreds more are" wait_for 60 other_is_listed $((650 * 65536))
# With memory encryption, the number of the key is above the address.
mce_inject $(((start + 700 * 65536) | 1 << 62)) 12
check "and one with an encryption key" wait_for 60 other_is_listed $((700 * 65536))
# A bus error, and an address that is not valid (no ADDRV).
mce_inject $((start + 701 * 65536)) 12 0xbd00000000000e0b
mce_inject $((start + 702 * 65536)) 12 0xb9000000000000c0
mce_inject $((start + 703 * 65536)) 12
check "a memory error behind other errors is" wait_for 60 other_is_listed $((703 * 65536))
is "they are not" "$(grep -cE "^($((701 * 65536))|$((702 * 65536))) " "$ND/$other/errors/list")" 0
check_unchanged "in the end"
