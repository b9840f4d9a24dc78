#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A load, an unload or an unbind in which any one allocation fails gives an errno or succeeds, and forgets no error.
# debug
# expect-splat: vmalloc error
# expect-splat: vmemmap alloc failure
# expect-splat: at arch_add_memory+
# vm: provider
# timeout: 900
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"

# check_end NAME STEP: the step ends a binding whose last changes the badrange list may not have yet.
check_end() {
	check_faults "$1" "ok|$ERRORS" "$2" --before "-load=$MODULE" --before "-write=$BIND=$NAMESPACE" --before "write=$LIST=drop 0 1048576" \
		--before "write=$LIST=add 65536 12288" --before "write=$LIST=drop 69632 4096" \
		--after "-load=$MODULE" --after "-write=$BIND=$NAMESPACE" --after "run=[ \"\$(cut -d ' ' -f 1,2 $LIST | paste -sd +)\" = '65536 4096+73728 4096' ]"
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need_faults
plan 6
provide size=$((16 << 20)) dimm=0
LIST=$ND/$NAMESPACE/errors/list
fill_disk "$DISK"
check_end "unbind" "write=$UNBIND=$NAMESPACE"
check_end "unload" "unload=rust_pmem"
echo "add 131072 4096" >"$LIST"
# A driver without these links is removed again, and its module is freed although the file with which the block layer has read the
# partition table is only closed when the program returns from the system call (do_init_module), with any driver.
spare_allocations_in module_add_driver
check_faults "load" "$ERRORS; none|$BIND_ERRORS; none|ok; none|ok; pmem0" "load=$MODULE" --before "-unload=rust_pmem" --look "/sys/block/pmem*"
rmmod rust_pmem 2>/dev/null || :
check "the next load" insmod "$MODULE"
settle
is "no error is forgotten" "$(paste -sd + "$LIST")" "65536 4096 log+73728 4096 log+131072 4096 log"
check_data "after all" "$DISK"
