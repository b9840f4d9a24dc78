#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A selftest on a machine that is not the project's own runs where all persistent memory is free and blank, and is skipped where it is in use, or holds what no selftest has made.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

blank=/run/rust_pmem-selftests.blank

cleanup() {
	umount $MNT 2>/dev/null
	rm -rf $blank /tmp/copies
	load_driver
	fresh_labels
}

# elsewhere TEST [FOLDER]: what it comes to there, or why it is skipped. Without a host there is no port to it.
elsewhere() {
	# shellcheck disable=SC2016 # for sh
	unshare --mount sh -c 'mount -t tmpfs none /dev/virtio-ports && exec sh "$2/lib/run.sh" "$1.sh"' sh "$1" "${2:-tests}" >/tmp/elsewhere 2>&1 || :
	sed -n 's/^# 1\.\.0 # SKIP //p; s/^\(ok\|not ok\) [0-9]* selftests: .*sh$/\1/p' /tmp/elsewhere
}

plan 8
load_driver
fresh_labels
for disk in $(plain_disk) $(e820_disk); do
	blkdiscard -f -z "/dev/$disk"
done
rm -f $blank
is "blank memory" "$(elsewhere block-statistics)" ok
mkdir -p /tmp/copies
cp -r tests /tmp/copies/rust_pmem
is "a copy of the tests, as in a kernel tree" "$(elsewhere block-statistics /tmp/copies/rust_pmem)" ok
load_driver
disk=$(e820_disk)
make_fs ext4 "$disk"
mount_dax "$disk"
is "a file system is mounted" "$(elsewhere block-statistics)" "$disk is in use"
umount $MNT
is "it is there, from the same boot" "$(elsewhere block-statistics)" ok
rm $blank
is "it is there, from before" "$(elsewhere block-statistics)" "$disk holds data that no selftest has made: blkdiscard -z would empty it"
load_driver
labelled_disk -m raw -s 32M >/dev/null
is "a namespace has a label" "$(elsewhere block-statistics | sed 's/:.*//')" "an NVDIMM has labels that no selftest has made"
is "a test that breaks memory from outside" "$(elsewhere mce-nvdimm)" "only the host of a virtual machine can do what this takes: make check"
is "a test for a machine with other memory" "$(elsewhere flush-fsync)" "the kernel was not started with memmap=128M\$512M"
