# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests of device DAX faults:
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/devdax.sh"
#	load_driver
#	trace_faults


trace=/sys/kernel/tracing

cleanup() {
	echo nop >$trace/current_tracer
	echo >$trace/set_ftrace_filter
	modprobe -r device_dax dax_pmem
}

# trace_faults: records faults from here on.
trace_faults() {
	modprobe device_dax
	# Not every architecture has huge pages of 1 GiB.
	! kernel_has vmf_insert_folio_pud || echo vmf_insert_folio_pud >$trace/set_ftrace_filter
	echo 'vmf_insert_folio_pmd vmf_insert_page_mkwrite' >>$trace/set_ftrace_filter
	echo function >$trace/current_tracer
}

# count_faults: the number of faults of each size since the last call.
count_faults() {
	printf '%d of 1 GiB, %d of 2 MiB, %d of 4 KiB' "$(grep -c ' vmf_insert_folio_pud ' $trace/trace)" \
		"$(grep -c ' vmf_insert_folio_pmd ' $trace/trace)" "$(grep -c ' vmf_insert_page_mkwrite ' $trace/trace)"
	echo >$trace/trace
}
