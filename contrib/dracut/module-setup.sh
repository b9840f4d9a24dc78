#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Module of dracut, for a root file system on persistent memory: the drivers, and what puts saved errors back on the kernel's
# lists before the mount. "add_dracutmodules+=' rust_pmem '" in dracut.conf(5) copies them for any root.

check() {
	require_binaries /usr/sbin/pmemctl || return 1
	local device
	# shellcheck disable=SC2154 # dracut's
	for device in "${host_devs[@]}"; do
		! lsblk --inverse --noheadings --raw --output NAME "$device" 2>/dev/null | grep -q '^pmem' || return 0
	done
	return 255
}

depends() { echo udev-rules; }

installkernel() {
	hostonly='' instmods nfit nd_e820 virtio_pmem cxl_acpi cxl_pci cxl_mem cxl_port cxl_pmem nd_pmem nd_btt rust_pmem
}

install() {
	inst_simple /usr/sbin/pmemctl
	inst_rules 59-pmemctl.rules
	# dracut copies modprobe.d of the host only if the image is for the host alone.
	inst_simple /usr/lib/modprobe.d/rust_pmem.conf
	# A list is restored on the machine that it was saved on.
	inst_simple /etc/machine-id
	local list
	for list in /var/lib/pmemctl/*.json; do
		[[ ! -e $list ]] || inst_simple "$list"
	done
}
