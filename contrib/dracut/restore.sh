#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Hook of dracut, sourced after the root file system is mounted: if its saved lists of errors are newer than those of the
# initramfs, errors that were repaired since then leave the lists of the disks, before a program on such a page is started.

# shellcheck disable=SC2154 # dracut sets it
if [ -d "$NEWROOT/var/lib/pmemctl" ]; then
	# The rule of a disk must not restore an older copy later.
	udevadm settle --timeout=30
	pmemctl errors restore --all --later-copy --state-dir "$NEWROOT/var/lib/pmemctl" >/dev/null || :
fi
