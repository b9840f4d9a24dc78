#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Mutated metadata, labels, commands, requests, ioctls and writes to sysfs, with a new seed each time, for an hour, or MINUTES.
#
# With IMAGES, so many images of metadata alone.
# soak
# kernel: device_dax
# vm: provider-labels
# expect-splat: at nsio_rw_bytes+
# expect-splat: WARN() < size_store
# expect-splat: at pmem_sector_size+
# expect-splat: shift-out-of-bounds < drivers/nvdimm/pfn_devs.c
# expect-splat: at add_pages+
# expect-splat: at badblocks_check+ < nd_pfn_clear_memmap_errors
# expect-splat: at badblocks_check+ < btt_submit_bio
# expect-splat: WARN() < nd_cmd_in_size
# expect-splat: WARN() < acpi_ut_copy_eobject_to_iobject
# timeout: 10800
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/fuzz.sh"

need pmem-fuzz ndctl
remove_providers
seed=${SEED:-$(date +%s)}
part=$((${MINUTES:-60} * 60 / 11))
if [ -n "${IMAGES:-}" ]; then
	inputs="--count $(((IMAGES + 4) / 5))"
	plan 5
else
	inputs="--count 1000000 --seconds $part"
	plan 16
fi

# try_images NAME MODE MEBIBYTES COMMANDS BAD: 1 row.
try_images() {
	name=$1
	shift
	# shellcheck disable=SC2086 # options
	check "$name, seed $seed" fuzz_images "$@" --seed "$seed" $inputs
	[ -z "$tap_output" ] || echo "$tap_output" | sed 's/^/# /'
}

# With a memory section, whose struct pages are on the device.
try_images fsdax fsdax 160 1 20M+4K
if [ "$DRIVER" = rust_pmem ]; then
	try_images "fsdax, errors that stay" fsdax 160 0 "$STAYS_IN_FSDAX"
else
	skip "fsdax, errors that stay" "$ENDLESS"
fi
try_images devdax devdax 32 1 ""
try_images sector sector 32 1 ""
try_images "sector, errors that stay" sector 32 0 "$STAYS_IN_SECTOR"
[ -z "${IMAGES:-}" ] || exit 0
for mode in raw fsdax sector; do
	if [ "$DRIVER" = rust_pmem ]; then
		check "commands, $mode, seed $seed" fuzz_commands $mode --seed "$seed" --count 100000000 --seconds $((part / 3))
	else
		skip "commands, $mode" "nd_pmem has no errors/list"
	fi
done
provide size=$((16 << 20)) pages=1 commands=0
check "requests, seed $seed" pmem-io requests "/dev/$DISK" --seed "$seed" --bad --batches 100000000 --seconds $part
provider_cleanup
# Only these, and those that follow, use the NVDIMM.
for mode in raw fsdax; do
	check "ioctls, $mode, seed $seed" fuzz_ioctls $mode --seed "$seed" --count 100000000 --seconds $((part / 2))
	[ -z "$tap_output" ] || echo "$tap_output" | sed 's/^/# /'
done
load_driver
check "labels, seed $seed" fuzz_labels --seed "$seed" --count 100000000 --seconds $part
[ -z "$tap_output" ] || echo "$tap_output" | sed 's/^/# /'
check "sysfs, seed $seed" fuzz_files --seed "$seed" --count 100000000 --seconds $part
[ -z "$tap_output" ] || echo "$tap_output" | sed 's/^/# /'
check_usable_afterwards
check "sysfs of a bus without commands, seed $seed" fuzz_provider_files --seed "$seed" --count 100000000 --seconds $part
[ -z "$tap_output" ] || echo "$tap_output" | sed 's/^/# /'
provider_cleanup
