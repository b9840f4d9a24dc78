#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A namespace whose info block has an error is not bound in raw mode if its label names another mode.
#
# libnvdimm takes an info block that can't be read for none. In raw mode, the data is not where it was, and a write to the
# disk overwrites the struct pages or the sector mode's map. Without a label nobody knows: that is a warning.
# quick
# vm: files
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

cleanup() {
	forget_errors "$disk"
	unload_driver
}

# rebind_namespace: disables the namespace, and tries to enable it. Sets disk, which is empty if that fails.
rebind_namespace() {
	ndctl disable-namespace "$namespace" >/dev/null 2>&1
	dmesg -C
	ndctl enable-namespace "$namespace" >/dev/null 2>&1 || :
	settle
	disk=$(disk_of "$namespace") || disk=
}

# drop_error DISK: drops the error if this is the namespace's disk in raw mode.
drop_error() {
	[ "$(device_of_disk "${1#/dev/}")" = "$namespace" ] && echo "drop 4096 512" >"$ND/$namespace/errors/list"
}

# make_bad MODE OPTION…: makes the namespace anew, with data, and has its info block fail.
make_bad() {
	disk=$(labelled_disk -m "$@")
	namespace=$(namespaces ACPI.NFIT)
	pmem-io fill --direct --length 1M "/dev/$disk"
	echo "add 4096 512" >"$ND/$(device_of_disk "$disk")/errors/list"
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need pmem-io
plan 16
load_driver
for mode in "fsdax -M mem" "sector -l 4096"; do
	# shellcheck disable=SC2086 # options
	make_bad $mode
	rebind_namespace
	check "${mode%% *}: it is not bound" test -z "$disk"
	is "${mode%% *}: the log says why" "$(dmesg | grep -c 'error at 0x.*, in the info block: ')" 1
	check "${mode%% *}: with force_raw, it is a raw disk" with_force_raw "$namespace" drop_error
	disk=$(disk_of "$namespace")
	check "${mode%% *}: the error repaired, the data is there" pmem-io verify --direct --length 1M "/dev/$disk"
done

fresh_labels -V 1.2
disk=$(make_namespace -r "$(labelled_region)" -m sector -l 4096 | jq -r .blockdev)
namespace=$(namespaces ACPI.NFIT)
echo "add 0 512" >"/sys/block/$disk/device/errors/list"
rebind_namespace
check "sector, labels of version 1.2: it is not bound" test -z "$disk"
with_force_raw "$namespace" sh -c "echo drop 0 512 >$ND/$namespace/errors/list"

namespace=$(e820_ns)
disk=$(make_fsdax "$namespace" dev)
pmem-io fill --direct --length 1M "/dev/$disk"
echo "add 4096 512" >"$ND/$(device_of_disk "$disk")/errors/list"
rebind_namespace
check "without a label: it is bound" test -n "$disk"
check "without a label: the memory is good, so that the mode is the same" pmem-io verify --direct --length 1M "/dev/$disk"
echo "drop 4096 512" >"$ND/$(device_of_disk "$disk")/errors/list"
ndctl create-namespace -f -e "$namespace" -m raw >/dev/null 2>&1
settle
disk=$(disk_of "$namespace")
echo "add 4096 512" >"$ND/$namespace/errors/list"
rebind_namespace
is "raw without a label: it is bound" "$(device_of_disk "$disk")" "$namespace"
is "raw without a label: no warning, as the memory can be read" "$(dmesg | grep -c 'where an info block may be')" 0
echo "drop 4096 512" >"$ND/$namespace/errors/list"
disk=$(labelled_disk -m raw)
namespace=$(namespaces ACPI.NFIT)
echo "add 4096 512" >"$ND/$namespace/errors/list"
rebind_namespace
is "raw with a label: it is bound" "$(device_of_disk "$disk")" "$namespace"
is "raw with a label: with a warning" "$(dmesg | grep -c 'where an info block may be')" 1
is "raw with a label: its other data can be read" "$(pmem-io pread --direct "/dev/$disk" --offset 8K --length 4K)" 4096
