# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Safety checks for a machine that is not a VM of this project: its persistent memory may hold data. A test that does
# not fit this machine is skipped. So is every test while persistent memory is in use, or holds data that no selftest
# wrote. test.sh sources this file before the test begins.

# The regions that were blank when the first test of this boot began. The tests alone have written to them since.
BLANK=/run/rust_pmem-selftests.blank

# A missing tool skips the test here.
need() {
	for tap_tool in "$@"; do
		command -v "$tap_tool" >/dev/null || skip_all "there is no $tap_tool"
	done
}

# list_regions: the physical address and size of each region.
list_regions() {
	for nd_region in "$ND"/region*; do
		[ ! -e "$nd_region/resource" ] || printf '%s %s\n' "$(cat "$nd_region/resource")" "$(cat "$nd_region/size")"
	done
}

# disk_in_use DISK: the disk, or one of its partitions, has a file system mounted, is used as swap, or has a holder.
disk_in_use() {
	for busy_part in "/sys/block/$1" "/sys/block/$1/$1"p*; do
		[ -e "$busy_part/dev" ] || continue
		# What can't be read counts as in use.
		read -r busy_number <"$busy_part/dev" || return 0
		! grep -q " $busy_number " /proc/self/mountinfo || return 0
		! grep -q "^/dev/${busy_part##*/} " /proc/swaps || return 0
		busy_holders=$(ls "$busy_part/holders") || return 0
		[ -z "$busy_holders" ] || return 0
	done
	return 1
}

# disk_is_blank DISK: it holds only zeroes.
disk_is_blank() {
	cmp -s -n "$(blockdev --getsize64 "/dev/$1")" "/dev/$1" /dev/zero
}

# need_machine: skips the test unless this machine has the devices that the header of the test asks for.
need_machine() {
	machine=$(sed -n 's/^# vm: \([a-z-]*\).*/\1/p' "$0")
	machine=$(sed -n "/^\[machine\.$machine]/,/^\[/s/^vm = \"\(.*\)\"/\1/p" "$TESTS/machines.toml")
	case $machine in
	*memmap=*)
		# shellcheck disable=SC2086 # the options, word by word
		for machine_word in $machine; do
			case $machine_word in
			memmap=*) grep -qwF "$machine_word" /proc/cmdline || skip_all "the kernel was not started with $machine_word" ;;
			esac
		done
		;;
	esac
	load_providers 2>/dev/null
	settle
	case $machine in
	*,labels*) labelled_region >/dev/null || skip_all "there is no NVDIMM with a label area" ;;
	esac
	case " $machine " in
	*"--nvdimm size="[0-9]*[GM]" "*)
		plain_namespace >/dev/null || skip_all "there is no NVDIMM without a label area"
		;;
	esac
	case $machine in
	*--e820*) [ -n "$(e820_ns)" ] || skip_all "there is no e820 memory" ;;
	esac
	case $machine in
	*--virtio-pmem*) [ -n "$(virtio_ns)" ] || skip_all "there is no virtio-pmem" ;;
	esac
	case $machine in
	*--cxl*) [ -e /sys/bus/cxl/devices/mem0 ] || skip_all "there is no CXL memory" ;;
	esac
}

# has_labelled_namespace: an NVDIMM has a namespace that was made by a label.
has_labelled_namespace() {
	for nd_namespace in "$ND"/namespace*; do
		[ -e "$nd_namespace/uuid" ] || continue
		read -r nd_size <"$nd_namespace/size"
		[ "$nd_size" = 0 ] || return 0
	done
	return 1
}

# need_free_memory: skips the test unless all persistent memory is free, and blank except for data of the tests.
need_free_memory() {
	if driver_has_device "$(other_driver)"; then
		skip_all "$(other_driver) has persistent memory: rmmod $(other_driver)"
	fi
	for guard_disk in /sys/block/pmem*; do
		[ -e "$guard_disk" ] || continue
		! disk_in_use "${guard_disk##*/}" || skip_all "${guard_disk##*/} is in use"
	done
	list_regions | sort >$BLANK.now
	if [ -e $BLANK ] && [ -z "$(comm -23 $BLANK.now $BLANK)" ]; then
		return
	fi
	! has_labelled_namespace ||
		skip_all "an NVDIMM has labels that no selftest has made: ndctl init-labels -f would empty them, with all that is on it"
	load_driver
	for guard_disk in /sys/block/pmem*; do
		[ -e "$guard_disk" ] || continue
		disk_is_blank "${guard_disk##*/}" ||
			skip_all "${guard_disk##*/} holds data that no selftest has made: blkdiscard -z would empty it"
	done
	unload_driver
	mv $BLANK.now $BLANK
}

# driver_has_device DRIVER: it is bound to a device.
driver_has_device() {
	[ -n "$(find "/sys/bus/nd/drivers/$1" -type l -name '*[0-9]' 2>/dev/null)" ]
}

[ "$(id -u)" = 0 ] || skip_all "only root can load a driver"
need ndctl jq
if [ "$DRIVER" = rust_pmem ] && [ ! -e "$MODULE" ]; then
	MODULE=$(modinfo -n rust_pmem 2>/dev/null) || skip_all "there is no rust_pmem.ko, here or installed"
fi
! grep -qE '(^|[^a-z_])host (mce|powercut|reboot|shutdown|add|remove|hmp)|/(save-restore|mce-inject)\.sh"' "$0" ||
	skip_all "only the host of a virtual machine can do what this takes: make check"
for tool in pmem-io pmemctl; do
	! grep -q "$tool" "$0" || need "$tool"
done
! grep -q '/lib/provider.sh"' "$0" || [ -e "$PROVIDER" ] ||
	skip_all "there is no provider/pmem_provider.ko"
need_machine
need_free_memory
