# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers to count the faults of DAX mappings by the size of the page that they map:
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/dax-faults.sh"
#	trace_faults
#	pmem-io map-read FILE
#	is "it is mapped by huge pages" "$(count_faults)" "2 of 2 MiB, 0 of 4 KiB"

FAULTS=/sys/kernel/tracing

# trace_faults: begins to count.
trace_faults() {
	echo 1 >$FAULTS/events/fs_dax/enable
	echo >$FAULTS/trace
}

# count_faults: the number of successful faults of each size since the last call.
count_faults() {
	printf '%d of 2 MiB, %d of 4 KiB' "$(grep -c 'dax_pmd_fault_done: .*NOPAGE' $FAULTS/trace)" \
		"$(grep -c 'dax_pte_fault_done: .*NOPAGE' $FAULTS/trace)"
	echo >$FAULTS/trace
}

# untrace_faults: ends that. For cleanup.
untrace_faults() {
	echo 0 >$FAULTS/events/fs_dax/enable
}
