#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Loading and unloading the driver changes no byte of a device; the other driver reads it before and after.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# with_other_driver COMMAND…: runs the command with the other driver loaded instead of the one under test.
with_other_driver() {
	(
		DRIVER=$(other_driver)
		reset_regions
		load_driver
		"$@"
		unload_driver
	)
}

checksums() {
	md5sum "/dev/$(plain_disk)" "/dev/$(e820_disk)"
	with_force_raw "$fsdax" md5sum
	with_force_raw "$sector" md5sum
	with_force_raw "$device" checksums_around_memmap
}

# checksums_around_memmap DISK: each load rewrites the struct pages, so compare the bytes before and after them. Without pipes, which
# would hide that they can't be read.
checksums_around_memmap() {
	head -c 8192 "$1" >/tmp/load-unload-changes-no-byte.head && md5sum </tmp/load-unload-changes-no-byte.head &&
		{ dd bs=2M skip=1 count=0 status=none && md5sum; } <"$1"
}

make_devices() {
	pmem-io fill --direct "/dev/$(plain_disk)" --seed 1
	pmem-io fill --direct "/dev/$(e820_disk)" --seed 2
	pmem-io fill --direct "/dev/$(labelled_disk -m fsdax -M mem -s 32M)"
	make_namespace -r "$(labelled_region)" -m fsdax -M dev -s 32M >/tmp/load-unload-changes-no-byte.device
	pmem-io fill --direct "/dev/$(jq -r .blockdev /tmp/load-unload-changes-no-byte.device)"
	make_namespace -r "$(labelled_region)" -m sector -s 32M >/tmp/load-unload-changes-no-byte.sector
	pmem-io fill --direct --length 8M "/dev/$(jq -r .blockdev /tmp/load-unload-changes-no-byte.sector)"
}

cleanup() {
	unload_both_drivers
	rm -f /tmp/load-unload-changes-no-byte.*
}

need_both_drivers
plan 2
with_other_driver make_devices
fsdax=$(jq -r .dev /tmp/labelled_disk.json)
device=$(jq -r .dev /tmp/load-unload-changes-no-byte.device)
sector=$(jq -r .dev /tmp/load-unload-changes-no-byte.sector)
before=$(with_other_driver checksums)
is "all five devices were looked at" "$(echo "$before" | wc -l)" 6
reset_regions
load_driver
unload_driver
is "no byte has changed" "$(with_other_driver checksums)" "$before"
