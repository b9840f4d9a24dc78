#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Module of dracut, for a root file system, /usr or /var on persistent memory. An image for any machine always has it; one for
# this machine (hostonly=yes) has it if needed, or with "add_dracutmodules+=' rust_pmem '" in dracut.conf(5).
# shellcheck disable=SC2086,SC2154 # lists; dracut's variables

# shellcheck source=contrib/initramfs.sh
. /usr/share/pmemctl/initramfs.sh

check() {
	require_binaries /usr/sbin/pmemctl || return 1
	[[ $hostonly || $mount_needs ]] || return 0
	local device
	for device in "${host_devs[@]}"; do
		! is_on_pmem "$device" || return 0
	done
	# dracut does not look at /var.
	! is_system_on_pmem || return 0
	# nd_pmem would serve them all, and blkid would read bad pages of their disks before these are listed.
	! has_namespaces || return 0
	return 255
}

depends() { echo udev-rules; }

installkernel() { hostonly='' instmods $pmem_modules; }

install() {
	inst_multiple /usr/sbin/pmemctl $pmem_files
	# Saved errors are of this machine.
	[[ $hostonly ]] || return 0
	inst_multiple $pmem_saved
	inst_hook pre-pivot 10 "$moddir/restore.sh"
}
