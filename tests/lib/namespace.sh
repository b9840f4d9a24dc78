# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers to find regions and namespaces of the nd bus by their provider.

# The entries of $ND are links: the parent of a namespace's folder is its region, and the parent of that is its bus.
# These functions avoid starting processes, which are slow in the guest.

# namespaces PROVIDER: the namespaces that have a size and are on a bus of this provider: ACPI.NFIT, e820, virtio-pmem…
namespaces() {
	for nd_namespace in "$ND"/namespace*; do
		[ -e "$nd_namespace/size" ] || continue
		read -r nd_size <"$nd_namespace/size"
		read -r nd_provider <"$nd_namespace/../../provider"
		[ "$nd_size" = 0 ] || [ "$nd_provider" != "$1" ] || printf '%s\n' "${nd_namespace##*/}"
	done
}

# first_namespace PROVIDER: the first of them, if there is one.
first_namespace() {
	for nd_namespace in "$ND"/namespace*; do
		[ -e "$nd_namespace/size" ] || continue
		read -r nd_size <"$nd_namespace/size" || continue
		read -r nd_provider <"$nd_namespace/../../provider" || continue
		if [ "$nd_size" != 0 ] && [ "$nd_provider" = "$1" ]; then
			printf '%s\n' "${nd_namespace##*/}"
			return
		fi
	done
}

# are_namespaces PROVIDER COUNT: the provider has so many of them.
are_namespaces() {
	[ "$(namespaces "$1" | wc -l)" -eq "$2" ]
}

# nfit_ns, e820_ns, virtio_ns: the first namespace of an NVDIMM, of e820 memory, of virtio-pmem.
nfit_ns() {
	first_namespace ACPI.NFIT
}

e820_ns() {
	first_namespace e820
}

virtio_ns() {
	first_namespace virtio-pmem
}

# cxl_ns, ramdax_ns: the first namespace of a CXL region, of e820 memory that is bound to ramdax.
cxl_ns() {
	first_namespace CXL
}

ramdax_ns() {
	first_namespace ramdax
}

# region_of PROVIDER: its first region.
region_of() {
	for nd_region in "$ND"/region*; do
		[ -e "$nd_region/../provider" ] || continue
		read -r nd_provider <"$nd_region/../provider"
		if [ "$nd_provider" = "$1" ]; then
			printf '%s\n' "${nd_region##*/}"
			return
		fi
	done
	return 1
}

# region_of_namespace NAMESPACE: the name of its region.
region_of_namespace() {
	name_of_folder "$ND/$1/.."
}

# nfit_region: the first region of an NVDIMM.
nfit_region() {
	region_of ACPI.NFIT
}

# make_cxl_region SIZE UUID: makes a region of the first CXL device. After a reboot the same call brings it back with
# its data.
make_cxl_region() {
	modprobe -a cxl_acpi cxl_pci cxl_mem cxl_pmem || return
	# The endpoint comes last, on a slow kernel after seconds.
	wait_for 30 cxl_is_active || return
	cxl create-region -d decoder0.0 -m mem0 -t pmem -s "$1" -U "$2" || return
	settle
}

# remove_cxl_regions: removes all regions of CXL devices. Needs the driver unloaded.
remove_cxl_regions() {
	for nd_region in /sys/bus/cxl/devices/region*; do
		[ ! -e "$nd_region" ] || cxl destroy-region -f "${nd_region##*/}" >/dev/null || return
	done
}

cxl_is_active() {
	[ -e /sys/bus/cxl/devices/mem0 ] && [ -e /sys/bus/cxl/devices/decoder0.0 ] &&
		find /sys/bus/cxl/devices/ -name 'endpoint*' | grep -q .
}

# bind_ramdax: binds ramdax, which provides a label area, to the e820 memory. nd_e820 must not be loaded.
bind_ramdax() {
	modprobe ramdax || return
	echo ramdax >/sys/bus/platform/devices/e820_pmem/driver_override
	echo e820_pmem >/sys/bus/platform/drivers/ramdax/bind || return
	settle
}

# disk_of NAMESPACE: the name of its disk (pmem0), also if a pfn or btt device claimed the namespace; fails if there is
# none.
disk_of() {
	for nd_block in "$ND/$1"/block/* "$ND/$1"/../*/block/*; do
		[ -e "$nd_block" ] || continue
		nd_device=${nd_block%/block/*}
		if [ "${nd_device##*/}" != "$1" ]; then
			[ -e "$nd_device/namespace" ] || continue
			read -r nd_claimed <"$nd_device/namespace" || continue
			[ "$nd_claimed" = "$1" ] || continue
		fi
		printf '%s\n' "${nd_block##*/}"
		return
	done
	return 1
}

# is_mounted REGION: a disk of it, or a partition of that, is mounted.
is_mounted() {
	grep -q '^/dev/pmem' /proc/mounts || return
	for nd_block in "$1"/*/block/*; do
		! grep -q "^/dev/${nd_block##*/}[ p]" /proc/mounts || return 0
	done
	return 1
}

# disable_regions, enable_regions: all of them but those that are mounted, as ndctl does it, but without its process.
disable_regions() {
	for nd_region in "$ND"/region*; do
		[ ! -e "$nd_region/driver" ] || is_mounted "$nd_region" || echo "${nd_region##*/}" >/sys/bus/nd/drivers/nd_region/unbind || :
	done
} 2>/dev/null

enable_regions() {
	for nd_region in "$ND"/region*; do
		[ ! -e "$nd_region" ] || [ -e "$nd_region/driver" ] || echo "${nd_region##*/}" >/sys/bus/nd/drivers/nd_region/bind || :
	done
} 2>/dev/null

# fresh_labels [OPTION OF ndctl init-labels…]: empties the labels of every NVDIMM, as ndctl needs it to make namespaces. The
# old namespaces are lost.
fresh_labels() {
	disable_regions
	ndctl init-labels -f "$@" all >/dev/null 2>&1
	enable_regions
	settle
}

# make_fsdax NAMESPACE [MAP]: makes it an fsdax namespace with its struct pages in memory (mem) or on the device (dev),
# and prints the name of its disk.
make_fsdax() {
	ndctl create-namespace -f -e "$1" -m fsdax -M "${2:-mem}" >/tmp/make_fsdax.json || return
	settle
	jq -r .blockdev /tmp/make_fsdax.json
}

# make_namespace ARGUMENTS OF ndctl create-namespace…: makes one and prints ndctl's JSON.
make_namespace() {
	ndctl create-namespace -f "$@" || return
	settle
}
