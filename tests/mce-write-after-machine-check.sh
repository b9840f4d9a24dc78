#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# No kind of write to a page after a machine check crashes the kernel.
#
# Covers pages that a mapping had touched, which memory failure handling unmaps from the direct map, and others; known
# to the bus or not.
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
prepare_files touched 0
prepare_files touched_listed 1
prepare_files untouched 2
prepare_files untouched_listed 3
remount untouched
remount untouched_listed
for state in touched touched_listed untouched untouched_listed; do
	inject_mces $state
done
report_on_bus touched_listed
report_on_bus untouched_listed

write_all touched "touched"
write_all touched_listed "touched, in badrange"
write_all untouched "not touched"
write_all untouched_listed "not touched, in badrange"
write_punched touched_listed "touched, in badrange"
write_punched untouched "not touched"
write_punched untouched_listed "not touched, in badrange"
write_punched touched "touched"
report_rows
