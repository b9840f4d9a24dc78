#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The region is flushed before the driver releases it: unbind, rmmod, disabled namespace or region, mode change.
#
# In raw, fsdax and sector mode. Bound again, or with the driver loaded again, the namespace has the same disk with the same data.
# compare
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/flush-count.sh"

need pmem-io

# bound_device: the device of the nd bus that the driver is bound to.
bound_device() {
	basename "$(find "/sys/bus/nd/drivers/$DRIVER/" -type l -name '[nbp]*.*' | head -n 1)"
}

unbind_device() {
	bound_device >"/sys/bus/nd/drivers/$DRIVER/unbind"
}

# in_raw COMMAND…: runs it in raw mode only.
in_raw() {
	[ "$mode" != raw ] || "$@"
}

# test_release MODE DISK: 6 subtests, and 11 more in raw mode. Records numbers of flushes; the data is intact at the end.
test_release() {
	mode=$1
	size=$(cat "/sys/block/$2/size")
	pmem-io fill --direct "/dev/$2" --length 1M
	device=$(bound_device)
	count=$(count_flushes unbind_device)
	record "$1: unbind" "$count"
	in_raw is "unbind" "$count" 1
	in_raw check_fails "unbound: no disk" test -e "/sys/block/$2"
	in_raw is "unbound: no claim in iomem" "$(grep -c "$NAMESPACE" /proc/iomem)" 0
	record "$1: bind" "$(count_flushes sh -c "echo $device >/sys/bus/nd/drivers/$DRIVER/bind")"
	settle
	in_raw is "bound: the disk" "$(disk_of "$NAMESPACE")" "$2"
	in_raw is "bound: its size" "$(cat "/sys/block/$2/size")" "$size"
	in_raw check "bound: its bytes" pmem-io verify "/dev/$2" --length 1M
	count=$(count_flushes unload_driver)
	record "$1: rmmod" "$count"
	in_raw is "rmmod" "$count" 1
	in_raw check_fails "unloaded: no disk" test -e "/sys/block/$2"
	load_driver
	in_raw check "loaded: its bytes" pmem-io verify "/dev/$2" --length 1M
	record "$1: ndctl disable-namespace" "$(count_flushes ndctl disable-namespace "$NAMESPACE")"
	ndctl enable-namespace "$NAMESPACE" >/dev/null 2>&1
	settle
	count=$(count_flushes ndctl disable-region -b pmem_provider all)
	record "$1: ndctl disable-region" "$count"
	in_raw is "a region that is disabled" "$count" 1
	ndctl enable-region -b pmem_provider all >/dev/null 2>&1
	settle
	check "$1: what was written is there" pmem-io verify --direct "/dev/$2" --length 1M
	in_raw check "what was written is there" pmem-io verify "/dev/$2" --length 1M
}

plan 32
provide pages=1
check_fails "an unbound namespace can't be unbound" sh -c "echo namespace7.7 >/sys/bus/nd/drivers/$DRIVER/unbind"
test_release raw "$DISK"
disk=$(make_fsdax "$NAMESPACE" dev)
test_release fsdax "$disk"
# Sector mode does not support asynchronous flushes.
provider_cleanup
provide pages=1 dimm=0
disk=$(make_namespace -e "$NAMESPACE" -m sector -l 512 | jq -r .blockdev)
test_release sector "$disk"

# Unbind writes back the page cache of the disk, and flushes after that. A program keeps the disk open: nobody has written it
# back before.
disk=$(make_namespace -e "$NAMESPACE" -m raw | jq -r .blockdev)
provider watch 4096
pattern bbbbbbb 8 >/tmp/data
exec 5<"/dev/$disk"
dd if=/tmp/data of="/dev/$disk" bs=4k seek=1 conv=notrunc status=none
unbind_device
exec 5<&-
is "dirty page cache: flushed after it was written" "$(provider seen)" "$(od -An -tu8 -N8 /tmp/data | tr -d ' ')"
provider flush_fails 1
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
check "a flush that fails: the disk goes all the same" unbind_device
