#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# No kind of write to a page that is unmapped from the direct map, without a reported machine check, crashes the kernel.
#
# Covers pages that the bus lists and others.
# compare
# vm: provider 2
# expect-splat-nd_pmem: BUG: unable to handle
# expect-splat-nd_pmem: BUG: kernel NULL pointer dereference
# expect-splat-nd_pmem: WARNING: kernel/exit.c
# expect-splat-nd_pmem: Oops:
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/write-poisoned.sh"

provide size=134217728 nr_regions=4
prepare_files lost 0
prepare_files lost_listed 1
umount /tmp/lost /tmp/lost_listed
unmap_pages lost
unmap_pages lost_listed
# Unbinding leaves them unmapped, and binding finds them.
for namespace in namespace0.0 namespace1.0; do
	rebind $namespace
done
report_on_bus lost_listed
remount lost
remount lost_listed

write_all lost "unmapped"
write_all lost_listed "unmapped, in badrange"
write_punched lost_listed "unmapped, in badrange"
report_rows
