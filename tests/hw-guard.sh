#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Outside the project's VMs, a selftest runs only if all persistent memory is free and blank, and is skipped otherwise.
#
# Memory that earlier selftests of the same boot wrote counts as blank.
# vm: labels
. "$(dirname "$0")/lib/test.sh"

blank=/run/rust_pmem-selftests.blank

cleanup() {
	umount $MNT 2>/dev/null
	rm -rf $blank /tmp/copies
	load_driver
	fresh_labels
	blkdiscard -f -z "/dev/$(e820_disk)"
}

# run_guarded TEST [FOLDER]: runs the test as on a machine without a host port; prints its result, or why it is skipped.
run_guarded() {
	# shellcheck disable=SC2016 # for sh
	unshare --mount sh -c 'mount -t tmpfs none /dev/virtio-ports && exec sh "$2/lib/run.sh" "$1.sh"' sh "$1" "${2:-tests}" >/tmp/guarded 2>&1 || :
	sed -n 's/^# 1\.\.0 # SKIP //p; s/^\(ok\|not ok\) [0-9]* selftests: .*sh$/\1/p' /tmp/guarded
}

plan 8
load_driver
fresh_labels
for disk in $(plain_disk) $(e820_disk); do
	blkdiscard -f -z "/dev/$disk"
done
rm -f $blank
is "blank memory" "$(run_guarded block-page-cache)" ok
mkdir -p /tmp/copies
cp -r tests /tmp/copies/rust_pmem
is "a copy of the tests, as in a kernel tree" "$(run_guarded block-page-cache /tmp/copies/rust_pmem)" ok
load_driver
disk=$(e820_disk)
make_fs ext4 "$disk"
mount_dax "$disk"
is "a file system is mounted" "$(run_guarded block-page-cache)" "$disk is in use"
umount $MNT
is "it is there, from the same boot" "$(run_guarded block-page-cache)" ok
rm $blank
load_driver
blkdiscard -f -z "/dev/$(plain_disk)"
is "it is there, from before" "$(run_guarded block-page-cache)" "$disk holds data that no selftest has made: blkdiscard -z would empty it"
load_driver
labelled_disk -m raw -s 32M >/dev/null
is "a namespace has a label" "$(run_guarded block-page-cache | sed 's/:.*//')" "an NVDIMM has labels that no selftest has made"
is "a test that breaks memory from outside" "$(run_guarded mce-nvdimm)" "only the host of a virtual machine can do what this takes: make check"
is "a test for a machine with other memory" "$(run_guarded flush-fua)" "the kernel was not started with memmap=192M\$512M"
