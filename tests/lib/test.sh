# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the selftests share. A test begins with
#
#	#!/bin/sh
#	# SPDX-License-Identifier: GPL-2.0
#	# What is tested, in a sentence or two.
#	# vm: OPTIONS OF pmem-vm       (otherwise the default machine; tests with the same line share one)
#	# timeout: SECONDS             (otherwise 120)
#	# expect-splat: TEXT           (a report of the kernel with this text in it does not fail the test)
#	# compare                      (records what it sees with `seen` and `answers`; run by `make parity` under both drivers)
#	# quick                        (run by `make check` as well, though it is one to compare)
#	. "$(dirname "$0")/lib/test.sh"
#	plan 3
#	check "a file system is made" mkfs.ext4 -q /dev/pmem0
#
# and prints KTAP. Statuses: 0 = all passed, 1 = failed, 4 = skipped. A function `cleanup` of the test is called at its end,
# however that comes.
#
# Environment: DRIVER (rust_pmem or nd_pmem), STAGE (1, then 2 after `host powercut` or `host reboot`, …), MODULE (the path of
# rust_pmem.ko), TESTS (this folder's parent; scripts that are not in it set it). `host` asks the runner for what only it can do; pmem-io does
# to a file or a mapping what packaged programs don't; pmemctl is the administrator's tool.

set -eu

: "${TESTS:=$(realpath "$(dirname "$0")")}"
: "${CHECKOUT:=${TESTS%/*}}"
: "${DRIVER:=rust_pmem}" "${STAGE:=1}" "${MODULE:=$CHECKOUT/rust_pmem.ko}"
ND=/sys/bus/nd/devices

# Run from the guest's own memory, as the way to the checkout is long.
TOOLS=$CHECKOUT/build/tools/release
for tool in pmem-io pmemctl; do
	if [ ! -e "/run/pmem/$tool" ] && [ -e "$TOOLS/$tool" ]; then
		mkdir -p /run/pmem
		cp "$TOOLS/$tool" /run/pmem/
	fi
done
PATH=/run/pmem:$PATH

# shellcheck source=tests/lib/tap.sh
. "$TESTS/lib/tap.sh"
# shellcheck source=tests/lib/driver.sh
. "$TESTS/lib/driver.sh"
# shellcheck source=tests/lib/namespace.sh
. "$TESTS/lib/namespace.sh"
# shellcheck source=tests/lib/disk.sh
. "$TESTS/lib/disk.sh"
# shellcheck source=tests/lib/fs.sh
. "$TESTS/lib/fs.sh"

# Without a host, the machine is somebody's.
# shellcheck source=tests/lib/hw-guard.sh
[ -e /dev/virtio-ports/host ] || . "$TESTS/lib/hw-guard.sh"
