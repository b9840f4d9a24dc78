#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Module of dracut, for a root file system on persistent memory. "add_dracutmodules+=' rust_pmem '" in dracut.conf(5) copies
# drivers and saved errors for any root.

# shellcheck source=contrib/initramfs.sh
. /usr/share/pmemctl/initramfs.sh

check() {
	require_binaries /usr/sbin/pmemctl || return 1
	local device
	# shellcheck disable=SC2154 # dracut's
	for device in "${host_devs[@]}"; do
		! is_on_pmem "$device" || return 0
	done
	return 255
}

depends() { echo udev-rules; }

# shellcheck disable=SC2086 # a list
installkernel() { hostonly='' instmods $pmem_modules; }

# shellcheck disable=SC2086 # a list
install() { inst_multiple /usr/sbin/pmemctl $pmem_files; }
