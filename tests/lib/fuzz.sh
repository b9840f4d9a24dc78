# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that let pmem-fuzz mutate the metadata of a namespace:
#
#	# vm: --bare --append memmap=128M$512M
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/fuzz.sh"
#	fuzz_images fsdax --count 1000

# shellcheck source=tests/lib/provider.sh
. "$TESTS/lib/provider.sh"

# fuzz_images MODE ARGUMENTS OF pmem-fuzz images…: makes a namespace of 32M in this mode on the provider's memory, and lets
# the driver under test probe mutations of it. Prints the results. A guest that is lost by an image has its number at the
# end of the kernel's log.
fuzz_images() {
	fuzz_mode=$1 fuzz_kind=pfn
	shift
	# Whether a device DAX namespace is bound must not depend on what ran before.
	modprobe -a device_dax dax_pmem
	# Without asynchronous flushes: with them, rust_pmem makes sector mode read-only.
	provide size=$((32 << 20)) pages=1 dimm=0
	case $fuzz_mode in
	fsdax) make_namespace -e "$NAMESPACE" -m fsdax -M dev >/dev/null ;;
	devdax) make_namespace -e "$NAMESPACE" -m devdax -M mem >/dev/null ;;
	sector)
		fuzz_kind=btt
		make_namespace -e "$NAMESPACE" -m sector >/dev/null
		;;
	esac
	provider_cleanup
	dd if=/dev/mem of=/tmp/sample bs=1M skip=512 count=32 status=none
	load_driver
	provider_load keep=1 size=$((32 << 20)) pages=1 dimm=0
	fuzz_status=0
	pmem-fuzz images $fuzz_kind /tmp/sample "$@" 2>&1 || fuzz_status=$?
	provider_cleanup
	return $fuzz_status
}
