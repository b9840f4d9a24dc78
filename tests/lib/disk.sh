# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Disks of namespaces.

# has_labels REGION: whether its NVDIMM has a label area.
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

# labelled_disk ARGUMENTS OF ndctl create-namespace…: the only namespace of that region, its labels being emptied before; prints
# the name of its disk.
labelled_disk() {
	fresh_labels
	ndctl create-namespace -r "$(labelled_region)" "$@" >/tmp/labelled_disk.json || return
	settle
	jq -r .blockdev /tmp/labelled_disk.json
}

# plain_disk: the disk of an NVDIMM that has no label area, raw.
plain_disk() {
	for nd_plain in $(namespaces ACPI.NFIT); do
		if ! has_labels "$nd_plain/.."; then
			disk_of "$nd_plain"
			return
		fi
	done
	return 1
}

# e820_disk: the disk of the e820 memory, raw.
e820_disk() {
	disk_of "$(e820_ns)"
}

# owner_of DISK: the device of the nd bus that it is of: the namespace, or what has claimed it.
owner_of() {
	basename "$(readlink -f "/sys/block/$1/device")"
}

# forget_errors DISK: none is known of its namespace any more, for whoever is bound next either. What was written to badblocks, C
# forgets when it is unbound.
forget_errors() {
	nd_owner=/sys/block/$1/device
	[ -e "$nd_owner/errors/list" ] || return 0
	[ ! -e "$nd_owner/namespace" ] || nd_owner=$ND/$(cat "$nd_owner/namespace")
	echo "drop 0 $(cat "$nd_owner/size")" >"/sys/block/$1/device/errors/list"
}
