#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Memory that fails during a copy fails only that read, whether the page is listed or not.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	# The page would stay unmapped for the tests that follow.
	provider unmap ""
	provider_cleanup
}

plan 7
provide pages=1
pattern before_ 8 | write_sectors "$DISK" 2040 8
pattern behind_ 8 | write_sectors "$DISK" 2056 8
# The state that the kernel leaves behind after a machine check: any access faults.
provider unmap 1M

check_fails "the page" read_sectors "$DISK" 2048 8
check_fails "a bio that it is in" read_sectors "$DISK" 2040 24
is "the page before" "$(read_sectors "$DISK" 2040 8 | md5sum)" "$(pattern before_ 8 | md5sum)"
is "the page behind" "$(read_sectors "$DISK" 2056 8 | md5sum)" "$(pattern behind_ 8 | md5sum)"
if [ "$DRIVER" = rust_pmem ]; then
	is "it is listed then" "$(cat "/sys/block/$DISK/device/errors/list") $(badblocks_of "$DISK")" "1048576 4096 memory-failure 2048+8"
else
	skip "it is listed then" "C does not list what a copy ran into"
fi
# A read that is counted takes another path.
echo 1 >"/sys/block/$DISK/queue/iostats"
provider unmap 2M
check_fails "with iostats, a page" read_sectors "$DISK" 4096 8
if [ "$DRIVER" = rust_pmem ]; then
	is "with iostats, it is listed" "$(badblocks_of "$DISK")" "2048+8 4096+8"
else
	skip "with iostats, it is listed" "C does not list what a copy ran into"
fi
