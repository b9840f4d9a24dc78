# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Common code of the selftests. A test begins with lines such as these, prints KTAP, and exits with 0 (passed), 1 (failed) or 4
# (skipped). Documentation/testing.rst has all tags.
#
#	#!/bin/sh
#	# SPDX-License-Identifier: GPL-2.0
#	# One sentence that names the tested behaviour; `make check LIST=1` prints it.
#	# vm: labels
#	# timeout: 300
#	. "$(dirname "$0")/lib/test.sh"
#	plan 1
#	check "a file system is made" mkfs.ext4 -q /dev/pmem0
#
# The test's function `cleanup`, if it has one, runs at every exit.
#
# Environment: DRIVER (rust_pmem or nd_pmem); STAGE (1; after `host powercut` or `host reboot` 2, and so on); MODULE (the
# path of rust_pmem.ko); PROVIDER (the path of pmem_provider.ko); KERNEL (its name in setup/kernels, if it is not the default
# one); TESTS (the path of this tests folder; a script outside it sets TESTS itself).
#
# The command `host` asks the test runner for operations that only the host can do. pmem-io does file and mapping operations that
# packaged programs lack. pmemctl is the administrator's tool.

set -eu

[ -n "${TESTS:-}" ] || case $0 in
*/*) TESTS=$(cd -P "${0%/*}/" && pwd -P) ;;
*) TESTS=$(pwd -P) ;;
esac
: "${CHECKOUT:=${TESTS%/*}}"
: "${DRIVER:=rust_pmem}" "${STAGE:=1}" "${MODULE:=$CHECKOUT/rust_pmem.ko}"
: "${PROVIDER:=$TESTS/provider/pmem_provider.ko}"
# shellcheck disable=SC2034 # for the tests
ND=/sys/bus/nd/devices MNT=/tmp/mnt

# Run from the guest's own memory: the checkout is on a slow file system.
: "${TOOLS:=$CHECKOUT/build/tools/debug}"
for tool in pmem-io pmemctl; do
	if [ ! -e "/run/pmem/$tool" ] && [ -e "$TOOLS/$tool" ]; then
		mkdir -p /run/pmem
		cp "$TOOLS/$tool" /run/pmem/
	fi
done
# Last: each program is searched for in each folder before its own.
PATH=/run/pmem:$PATH:$TOOLS

# Each of these is checked by itself: to follow them from every test takes ten times as long.
# shellcheck source=/dev/null
for library in tap driver namespace disk fs; do
	. "$TESTS/lib/$library.sh"
done

# kernel_has NAME: this kernel has the module, the feature below /sys/kernel/mm, or the function. The default kernel has all
# that tests need: anything that it lacks is a failure. PREEMPT_RT has no huge pages, and so no device DAX.
kernel_has() {
	[ -z "${KERNEL:-}" ] || modprobe -n "$1" 2>/dev/null || [ -e "/sys/kernel/mm/$1" ] || grep -q " $1\$" /proc/kallsyms
}

if [ -n "${KERNEL:-}" ]; then
	features=$(sed -n 's/^# kernel: //p' "$0")
	for feature in $features; do
		kernel_has "$feature" || skip_all "this kernel has no $feature"
	done
	case $KERNEL in
	arm64*)
		! sed '/^# vm:/d' "$0" | grep -qE 'e820|virtio|cxl|ramdax|mce-inject|write-poisoned|provider unmap' ||
			skip_all "QEMU has memory of e820, virtio-pmem and CXL for x86-64 only, as well as floods of machine checks"
		! grep -qE 'info_block_|lib/(corrupt|fuzz)' "$0" || skip_all "its /dev/mem reads no persistent memory"
		! grep -q 'syscall(' "$0" || skip_all "its system calls have the numbers of x86-64"
		;;
	esac
fi

# Outside a VM of this project, check first that the test may use the persistent memory.
# shellcheck source=/dev/null
[ -e /dev/virtio-ports/host ] || . "$TESTS/lib/hw-guard.sh"
