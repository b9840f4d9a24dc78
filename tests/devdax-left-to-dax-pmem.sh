#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A devdax namespace is left to dax_pmem, which makes a character device of it.
# kernel: device_dax
# quick
# vm: labels
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	modprobe -r device_dax dax_pmem
}

# list_devdax: the names of the character devices.
list_devdax() {
	ndctl list -X -m devdax | jq -r '.[].daxregion.devices[].chardev'
}

plan 13
load_driver
dmesg -C
labelled_disk -m devdax -s 32M >/tmp/devdax-left-to-dax-pmem.disk
namespace=$(jq -r .dev /tmp/labelled_disk.json)
modprobe device_dax
settle
dax=$(list_devdax)
is "there is no disk" "$(cat /tmp/devdax-left-to-dax-pmem.disk)" null
check_fails "the driver has let go of the namespace" test -e "$ND/$namespace/driver"
is "dax_pmem has it" "$(driver_of "$(cat "$ND/$namespace/holder")")" dax_pmem
check "there is a character device" test -c "/dev/$dax"
check "its memory is written" pmem-io map-write --length 4M "/dev/$dax"
check "and read" pmem-io map-verify --length 4M "/dev/$dax"
is "the log has no error" "$(dmesg | grep -ci 'fail\|error' || :)" 0
unload_driver
check "the driver goes, and the memory stays" pmem-io map-verify --length 4M "/dev/$dax"
load_driver
is "the driver comes, and leaves it alone" "$(driver_of "$(cat "$ND/$namespace/holder")")" dax_pmem
check "still" pmem-io map-verify --length 4M "/dev/$dax"
unload_driver
reset_regions
load_driver
is "found again, it is left to dax_pmem" "$(driver_of "$(cat "$ND/$namespace/holder")")" dax_pmem
is "and is a character device again" "$(list_devdax)" "$dax"
check "with its bytes" pmem-io map-verify --length 4M "/dev/$dax"
rm -f /tmp/devdax-left-to-dax-pmem.disk
