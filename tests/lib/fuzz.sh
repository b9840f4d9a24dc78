# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that let pmem-fuzz mutate the metadata of a namespace:
#
#	# vm: provider
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/fuzz.sh"
#	fuzz_images fsdax 32 1 "" --count 1000

# shellcheck source=tests/lib/provider.sh
. "$TESTS/lib/provider.sh"

# What the environment selects: an input by its number, and some of its mutations.
FUZZ_SELECTED="${FIRST:+--first $FIRST} ${ONLY:+--only $ONLY}"

# Errors for fuzz_images that a bus without a clear-error command can't clear. One in front of an info block is hidden from
# libnvdimm during a bind; others are scattered over a BTT.
# shellcheck disable=SC2034 # for the tests
STAYS_IN_FSDAX=0+512,20M+4K STAYS_IN_SECTOR=$(seq -f '%gK+512' -s , 1024 500 16600)
# shellcheck disable=SC2034 # for the tests
ENDLESS="with C, a bind with a bad struct page that can't be cleared does not end"

# fuzz_images MODE MEBIBYTES COMMANDS BAD ARGUMENTS OF pmem-fuzz images…: makes a namespace of this size and mode on the provider's
# memory, and lets the driver under test probe mutations of it, where these ranges of the memory are bad, if there are any.
# COMMANDS: 1, or 0 for a bus that can't clear them. Prints the results. A guest that is lost by an image has its number at the end
# of the kernel's log.
fuzz_images() {
	fuzz_mode=$1 fuzz_mib=$2 fuzz_commands=$3 fuzz_bad=$4 fuzz_kind=pfn
	shift 4
	# The first region must be the provider's.
	[ ! -d /sys/module/nfit ] || rmmod nfit
	# Whether a device DAX namespace is bound must not depend on what ran before.
	modprobe -a device_dax dax_pmem
	# Without asynchronous flushes: with them, rust_pmem makes sector mode read-only.
	provide size=$((fuzz_mib << 20)) pages=1 dimm=0
	case $fuzz_mode in
	fsdax) make_namespace -e "$NAMESPACE" -m fsdax -M dev >/dev/null ;;
	devdax) make_namespace -e "$NAMESPACE" -m devdax -M mem >/dev/null ;;
	sector)
		fuzz_kind=btt
		make_namespace -e "$NAMESPACE" -m sector >/dev/null
		;;
	esac
	provider_cleanup
	dd if=/dev/mem of=/tmp/sample bs=1M skip=512 count="$fuzz_mib" status=none
	load_driver
	provider_load keep=1 size=$((fuzz_mib << 20)) pages=1 dimm=0 commands="$fuzz_commands"
	# shellcheck disable=SC2086 # options
	fuzz_provided images $fuzz_kind /tmp/sample ${fuzz_bad:+--bad $fuzz_bad} "$@"
}

# fuzz_commands MODE ARGUMENTS OF pmem-fuzz commands…: writes commands to the list of errors of a namespace of this mode (raw, fsdax,
# sector). Prints the results.
fuzz_commands() {
	fuzz_provide "$1" 32
	shift
	fuzz_provided commands "$ND/$(device_of_disk "$fuzz_disk")/errors/list" $((32 << 20)) "$@"
}

# fuzz_ioctls MODE ARGUMENTS OF pmem-fuzz ioctls…: makes ioctls of the disk of a namespace of this mode (raw, fsdax), of its bus, and
# of the NVDIMM and its bus. Prints the results.
fuzz_ioctls() {
	modprobe nfit
	fuzz_provide "$1" 16
	shift
	fuzz_provided ioctls "/dev/$fuzz_disk" "$@"
}

# fuzz_provide MODE MEBIBYTES: makes such a namespace, of the disk fuzz_disk, on the provider's memory.
fuzz_provide() {
	provide size=$(($2 << 20)) pages=1
	fuzz_disk=$DISK
	[ "$1" = raw ] || fuzz_disk=$(make_namespace -e "$NAMESPACE" -m "$1" | jq -r .blockdev)
}

# fuzz_provided ARGUMENTS OF pmem-fuzz…: runs it on what the provider has now, which is removed then. Prints the results.
fuzz_provided() {
	fuzz_status=0
	# shellcheck disable=SC2086 # options
	pmem-fuzz "$@" $FUZZ_SELECTED 2>&1 || fuzz_status=$?
	provider_cleanup
	return $fuzz_status
}

# fuzz_labels ARGUMENTS OF pmem-fuzz labels…: probes mutations of the labels of three namespaces.
fuzz_labels() {
	fuzz_namespaces
	# shellcheck disable=SC2086 # options
	pmem-fuzz labels $FUZZ_SELECTED --region "$fuzz_region" --dimm "$(sed 's/,.*//' "$ND/$fuzz_region/mapping0")" "$@" 2>&1
}

# fuzz_files ARGUMENTS OF pmem-fuzz files…: writes to all files of the region of such namespaces, to those of its disks, bus,
# DIMMs and driver, and to those by which rust_pmem poisons memory.
fuzz_files() {
	fuzz_load_driver
	fuzz_namespaces
	cp "$ND/$fuzz_region/align" /tmp/fuzz_align
	fuzz_files_of "$fuzz_region" "$@"
}

# fuzz_provider_files ARGUMENTS OF pmem-fuzz files…: the same for a region of the provider, whose bus has no commands.
fuzz_provider_files() {
	provide size=$((32 << 20)) pages=1 dimm=0 commands=0
	fuzz_load_driver
	fuzz_files_of "$(region_of_namespace "$NAMESPACE")" "$@"
}

# fuzz_load_driver: loads the driver under test; rust_pmem so that it can poison memory.
fuzz_load_driver() {
	unload_driver
	if [ "$DRIVER" = rust_pmem ]; then
		mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
		insmod "$MODULE" inject=1
		settle
	else
		load_driver
	fi
}

# fuzz_files_of REGION ARGUMENTS OF pmem-fuzz files…
fuzz_files_of() {
	[ "$DRIVER" != rust_pmem ] || set -- "$@" --poison
	pmem-fuzz files "$@" --driver "$DRIVER" 2>&1
}

# check_usable_afterwards: 2 subtests: after such writes, a namespace can be made on the region, and be written.
check_usable_afterwards() {
	fuzz_region=$(labelled_region)
	echo 0 >"$ND/$fuzz_region/read_only"
	fresh_labels
	cat /tmp/fuzz_align >"$ND/$fuzz_region/align"
	disk=$(labelled_disk -m raw) || disk=
	list=/sys/block/$disk/device/errors/list
	[ ! -e "$list" ] || echo "drop 0 $(($(cat "/sys/block/$disk/size") * 512))" >"$list"
	blkdiscard -f -z "/dev/$disk"
	disk=$(labelled_disk -m fsdax -M mem -s 32M) || disk=
	check "a namespace can be made afterwards" test -n "$disk"
	check "and be written" pmem-io fill --direct --length 1M "/dev/$disk" --seed 1
}

# fuzz_namespaces: makes three namespaces on the NVDIMM with labels, of the region fuzz_region.
fuzz_namespaces() {
	fuzz_region=$(labelled_region)
	# Those of version 1.2 have a checksum each.
	fresh_labels -V 1.2
	for fuzz_mode in raw "fsdax -M mem" sector; do
		# shellcheck disable=SC2086 # options
		make_namespace -r "$fuzz_region" -m $fuzz_mode -s $(($(cat "$ND/$fuzz_region/size") / 4)) >/dev/null
	done
}
