#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# fsdax, with its page map in RAM or on the device, aligned to 4 KiB or 2 MiB: as asked for, usable, and the same when it is found again.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

# told: what ndctl says of it.
told() {
	ndctl list -N -n "$namespace" | jq -r '.[0] | "\(.mode) \(.map) \(.align) \(.blockdev)"'
}

# makes MAP ALIGN
makes() {
	disk=$(labelled_disk -m fsdax -M "$1" -a "$2" -s 32M)
	namespace=$(jq -r .dev /tmp/labelled_disk.json)
	is "$1, $2: is what was asked for" "$(told)" "fsdax $1 $2 $disk"
	make_fs ext4 "$disk"
	mount_dax "$disk"
	fallocate -l 64K $MNT/file
	check "$1, $2: a file is stored to" pmem-io map-write --sync --durable flush $MNT/file
	umount $MNT
	unload_driver
	reset_regions
	load_driver
	is "$1, $2: is what it was" "$(told)" "fsdax $1 $2 $disk"
	mount_dax "$disk"
	check "$1, $2: the file is there" pmem-io map-verify $MNT/file
	umount $MNT
}

plan 16
load_driver
makes mem 4096
makes mem 2097152
makes dev 4096
makes dev 2097152
