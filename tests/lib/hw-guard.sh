# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For a machine that is not the project's own: those are made for a test and thrown away afterwards, here what is there is
# somebody's. A test that this machine is not made for is skipped, and so is every test while persistent memory is in use, or holds
# data that no selftest has made. Sourced by lib.sh, before the test begins.

# Which memory was blank when the first test came, in this boot: what is in it since then is the tests' own.
BLANK=/run/rust_pmem-selftests.blank

# An absent tool is a reason to skip here.
need() {
	for tap_tool in "$@"; do
		command -v "$tap_tool" >/dev/null || skip_all "there is no $tap_tool"
	done
}

# regions: each, as its physical address and size.
regions() {
	for nd_region in "$ND"/region*; do
		[ ! -e "$nd_region/resource" ] || printf '%s %s\n' "$(cat "$nd_region/resource")" "$(cat "$nd_region/size")"
	done
}

# in_use DISK: a file system, swap or another device is on it or on a partition.
in_use() {
	for used_part in "/sys/block/$1" "/sys/block/$1/$1"p*; do
		[ -e "$used_part/dev" ] || continue
		read -r used_number <"$used_part/dev"
		! grep -q " $used_number " /proc/self/mountinfo || return 0
		! grep -q "^/dev/${used_part##*/} " /proc/swaps || return 0
		[ -z "$(ls "$used_part/holders")" ] || return 0
	done
	return 1
}

# is_blank DISK: it is nothing but zeroes.
is_blank() {
	cmp -s -n "$(blockdev --getsize64 "/dev/$1")" "/dev/$1" /dev/zero
}

# fits_machine: what the test's own header asks for is here.
fits_machine() {
	machine=$(sed -n 's/^# vm: //p' "$0")
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
	case " $machine" in
	*" --bare"*) ;;
	*" --nvdimm"* | *" --e820"* | *" --virtio-pmem"* | *" --cxl"*) ;;
	*) machine="--nvdimm size=512M,labels --e820 64M@512M" ;;
	esac
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

# plain_namespace: a namespace of an NVDIMM that has no label area.
plain_namespace() {
	for nd_plain in $(namespaces ACPI.NFIT); do
		has_labels "$nd_plain/.." || return 0
	done
	return 1
}

# has_labelled_namespace: memory of an NVDIMM was given to a namespace, by a label.
has_labelled_namespace() {
	for nd_namespace in "$ND"/namespace*; do
		[ -e "$nd_namespace/uuid" ] || continue
		read -r nd_size <"$nd_namespace/size"
		[ "$nd_size" = 0 ] || return 0
	done
	return 1
}

# nothing_is_lost: all persistent memory is free, and blank but for what the tests made.
nothing_is_lost() {
	if driver_of_any "$(other_driver)"; then
		skip_all "$(other_driver) has persistent memory: rmmod $(other_driver)"
	fi
	for lost_disk in /sys/block/pmem*; do
		[ -e "$lost_disk" ] || continue
		! in_use "${lost_disk##*/}" || skip_all "${lost_disk##*/} is in use"
	done
	regions | sort >$BLANK.now
	if [ -e $BLANK ] && [ -z "$(comm -23 $BLANK.now $BLANK)" ]; then
		return
	fi
	! has_labelled_namespace ||
		skip_all "an NVDIMM has labels that no selftest has made: ndctl init-labels -f would empty them, with all that is on it"
	load_driver
	for lost_disk in /sys/block/pmem*; do
		[ -e "$lost_disk" ] || continue
		is_blank "${lost_disk##*/}" ||
			skip_all "${lost_disk##*/} holds data that no selftest has made: blkdiscard -z would empty it"
	done
	unload_driver
	mv $BLANK.now $BLANK
}

# driver_of_any DRIVER: it has a device.
driver_of_any() {
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
! grep -q '/lib/provider.sh"' "$0" || [ -e "$TESTS/provider/pmem_provider.ko" ] ||
	skip_all "there is no provider/pmem_provider.ko"
fits_machine
nothing_is_lost
