# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers to find the disks of namespaces.

# has_labels REGION: its NVDIMM has a label area.
has_labels() {
	[ -e "$ND/$1/mapping0" ] || return
	IFS=, read -r nd_dimm _ <"$ND/$1/mapping0"
	read -r nd_commands <"$ND/$nd_dimm/commands"
	case " $nd_commands " in
	*" set_data "*) ;;
	*) return 1 ;;
	esac
}

# labelled_region: the region of an NVDIMM that has a label area.
labelled_region() {
	for nd_region in "$ND"/region*; do
		if has_labels "${nd_region##*/}"; then
			printf '%s\n' "${nd_region##*/}"
			return
		fi
	done
	return 1
}

# labelled_disk ARGUMENTS OF ndctl create-namespace…: empties the labels of that region, makes one namespace, and prints
# the name of its disk.
labelled_disk() {
	fresh_labels
	ndctl create-namespace -r "$(labelled_region)" "$@" >/tmp/labelled_disk.json || return
	settle
	jq -r .blockdev /tmp/labelled_disk.json
}

# plain_namespace: the namespace of an NVDIMM without a label area.
plain_namespace() {
	for nd_plain in $(namespaces ACPI.NFIT); do
		if ! has_labels "$nd_plain/.."; then
			printf '%s\n' "$nd_plain"
			return
		fi
	done
	return 1
}

# plain_disk: its disk, in raw mode.
plain_disk() {
	nd_plain=$(plain_namespace) || return
	disk_of "$nd_plain"
}

# e820_disk: the disk of the e820 memory, in raw mode.
e820_disk() {
	disk_of "$(e820_ns)"
}

# raw_disk NAMESPACE: the disk of memory without a label area, of which it makes a raw one if it has another mode.
raw_disk() {
	[ -n "$1" ] || return
	nd_raw=$(disk_of "$1") || nd_raw=
	[ "$(device_of_disk "$nd_raw")" = "$1" ] || make_namespace -e "$1" -m raw >/dev/null || return
	disk_of "$1"
}

# device_of_disk DISK: its device on the nd bus: the namespace, or the btt, pfn or dax device that claimed it.
device_of_disk() {
	name_of_folder "/sys/block/$1/device"
}

# forget_errors DISK: drops all errors of its namespace, so that the next driver to bind does not find them. nd_pmem
# forgets errors that were written to badblocks when it unbinds.
forget_errors() {
	nd_device=/sys/block/$1/device
	[ -e "$nd_device/errors/list" ] || return 0
	if [ -e "$nd_device/namespace" ]; then
		read -r nd_claimed <"$nd_device/namespace"
		nd_device=$ND/$nd_claimed
	fi
	read -r nd_size <"$nd_device/size"
	echo "drop 0 $nd_size" >"/sys/block/$1/device/errors/list"
}

# forget_errors_now DISK: the same, and nd_pmem does it now, by a rebind: nothing may use the disk.
forget_errors_now() {
	forget_errors "$1"
	[ "$DRIVER" = rust_pmem ] || rebind "$(device_of_disk "$1")"
}

# clean_up_volumes DISK: unmounts the file system, removes all volumes of device mapper, and the signatures and errors of the
# disk below them, and unloads the driver.
clean_up_volumes() {
	umount "$MNT" 2>/dev/null
	dmsetup remove_all --force 2>/dev/null
	forget_errors "$1"
	wipefs -aq "/dev/$1"
	unload_driver
}
