# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For tests of the faults of device DAX.
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/devdax.sh"
#	load_driver
#	watch_faults


trace=/sys/kernel/tracing

cleanup() {
	echo nop >$trace/current_tracer
	echo >$trace/set_ftrace_filter
	modprobe -r device_dax dax_pmem
}

# watch_faults: the kernel records them from here on.
watch_faults() {
	modprobe device_dax
	echo 'vmf_insert_folio_pud vmf_insert_folio_pmd vmf_insert_page_mkwrite' >$trace/set_ftrace_filter
	echo function >$trace/current_tracer
}

# faults: how many the kernel mapped, of which size, since the last time.
faults() {
	printf '%d of 1 GiB, %d of 2 MiB, %d of 4 KiB' "$(grep -c ' vmf_insert_folio_pud ' $trace/trace)" \
		"$(grep -c ' vmf_insert_folio_pmd ' $trace/trace)" "$(grep -c ' vmf_insert_page_mkwrite ' $trace/trace)"
	echo >$trace/trace
}
