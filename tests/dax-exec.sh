#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A program executes from a DAX file system, and private mappings of its pages are separate.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

plan 5
load_driver
disk=$(labelled_disk -m fsdax -M dev)
make_fs ext4 "$disk"
mount_dax "$disk"
program=$(command -v sha256sum)
cp "$program" $MNT/program
is "it runs and gives the right answer" "$(seq 10000 | $MNT/program)" "$(seq 10000 | sha256sum)"
check "its file has not changed" cmp "$program" $MNT/program
$MNT/program >/dev/null </dev/zero &
pid=$!
# Until the child of the shell has called exec.
tries=0
until [ "$(readlink /proc/$pid/exe)" = $MNT/program ] || [ $((tries += 1)) -gt 100 ]; do
	sleep 0.1
done
check_fails "its file can't be written while it runs" sh -c "echo x >>$MNT/program"
check "its code is mapped from the file" grep -q "r-xp.*$MNT/program" /proc/$pid/maps
kill $pid
wait $pid 2>/dev/null || :
check "then it can" sh -c "echo x >>$MNT/program"
