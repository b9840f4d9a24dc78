# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that let each allocation of an operation fail, one after the other. They need a kernel with
# CONFIG_FAULT_INJECTION:
#
#	# debug
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/fail-nth.sh"
#	need_faults
#	check_faults "a read" "ok [0-9a-f]+|$ERRORS" "pread=/dev/pmem0=0=4096"

# The errors that a fault may cause: ENOMEM; EFAULT of a copy from or to user memory; EIO of a bio.
# shellcheck disable=SC2034 # for the tests
ERRORS='(Cannot allocate memory|Bad address|Input/output error) \(os error [0-9]+\)'

# need_faults: skips the test if the kernel can't inject faults; otherwise lets allocations that may sleep fail as well,
# without a trace of each in the log, and undoes what an earlier test of the guest has set. Call it before plan.
need_faults() {
	[ -e /proc/self/fail-nth ] || skip_all "the kernel has no CONFIG_FAULT_INJECTION: make check-debug"
	for faults_kind in failslab fail_page_alloc fail_usercopy fail_make_request; do
		faults_kind=/sys/kernel/debug/$faults_kind
		[ ! -e "$faults_kind" ] || echo 0 >"$faults_kind/verbose"
		[ ! -e "$faults_kind/ignore-gfp-wait" ] || echo N >"$faults_kind/ignore-gfp-wait"
		[ ! -e "$faults_kind/ignore-gfp-highmem" ] || echo N >"$faults_kind/ignore-gfp-highmem"
		[ ! -e "$faults_kind/min-order" ] || echo 0 >"$faults_kind/min-order"
		[ ! -e "$faults_kind/reject-end" ] || echo 0 | tee "$faults_kind/reject-start" >"$faults_kind/reject-end"
	done
	end_faults
}

# spare_allocations_in FUNCTION: allocations by this function of the kernel, and by those that it calls, do not fail.
spare_allocations_in() {
	# shellcheck disable=SC2046 # the addresses of the function and of the next one
	set -- $(sort /proc/kallsyms | grep -m 1 -A 40 " [tT] $1\$" | cut -d ' ' -f 1 | uniq | head -n 2)
	for faults_kind in failslab fail_page_alloc; do
		faults_kind=/sys/kernel/debug/$faults_kind
		echo 32 >"$faults_kind/stacktrace-depth"
		echo "0x$1" >"$faults_kind/reject-start"
		echo "0x$2" >"$faults_kind/reject-end"
	done
}

# fail_allocations Y|N [NUMBER]: from now on, those of the driver under test fail, in any task; with Y only those that can't wait
# for memory. With NUMBER only one of the next so many does, which the kernel chooses.
fail_allocations() {
	faults_kind=/sys/kernel/debug/failslab
	faults_times=$MANY_FAULTS
	[ -z "${2:-}" ] || faults_times=1
	echo "${2:-1}" >$faults_kind/interval
	# shellcheck disable=SC2046 # its first and its last function: its data are elsewhere, behind other modules
	set -- "$1" $(grep " [tT] .*\[$DRIVER\]" /proc/kallsyms | cut -d ' ' -f 1 | sort | sed -n '1p;$p')
	echo 32 >$faults_kind/stacktrace-depth
	echo "0x$2" >$faults_kind/require-start
	echo "0x$3" >$faults_kind/require-end
	echo "$1" >$faults_kind/ignore-gfp-wait
	echo $faults_times >$faults_kind/times
	echo 100 >$faults_kind/probability
}
MANY_FAULTS=100000

# stop_faults: ends it. FAULTS is the number of allocations that have failed.
stop_faults() {
	end_faults
	# shellcheck disable=SC2034 # for the tests
	FAULTS=$((faults_times - $(cat /sys/kernel/debug/failslab/times)))
}

# end_faults: no more allocations fail, and where they may fail is not limited any more.
end_faults() {
	faults_kind=/sys/kernel/debug/failslab
	echo 0 >$faults_kind/probability
	echo 1 >$faults_kind/interval
	echo 0 >$faults_kind/require-start
	echo 0xffffffffffffffff >$faults_kind/require-end
	echo N >$faults_kind/ignore-gfp-wait
}

# checksum: that of its input, as pmem-io fail-nth prints it.
checksum() {
	gzip -c | tail -c 8 | od -An -tx4 | awk '{ print $1 }'
}

# check_faults NAME ALLOWED ARGUMENTS OF pmem-io fail-nth…: passes if faults were injected, and each result is as this extended
# regular expression says. Prints the results.
check_faults() {
	check_results "nothing could fail" "$@"
}

# check_no_faults NAME ALLOWED ARGUMENTS OF pmem-io fail-nth…: passes if there was nothing that could fail, and the result is
# as this extended regular expression says.
check_no_faults() {
	check_results "something could fail" "$@"
}

# The errors of a bind with a fault. EBUSY: the claim of the range is not possible; ENXIO: libnvdimm could not make sense of
# the namespace; ENODEV: another device claims it.
BIND_ERRORS='(Cannot allocate memory|Bad address|Device or resource busy|No such device( or address)?|Invalid argument) \(os error [0-9]+\)'
BIND=/sys/bus/nd/drivers/$DRIVER/bind
UNBIND=/sys/bus/nd/drivers/$DRIVER/unbind

# check_bind NAME DEVICE DISK REFUSED BOUND [ARGUMENTS OF pmem-io fail-nth…]: 3 rows: binds a device that stays when it is unbound.
# No other disk is of persistent memory. REFUSED and BOUND are extended regular expressions: what the arguments show, behind the
# name of the device, if the bind fails or succeeds.
check_bind() {
	faults_bound=$1 faults_device=$2 faults_disk=$3
	faults_allowed="$BIND_ERRORS; none; none$4|ok; $faults_disk; ${faults_device%.*}$5"
	shift 5
	check_faults "$faults_bound" "$faults_allowed" "write=$BIND=$faults_device" \
		--before "-write=$UNBIND=$faults_device" --look "/sys/block/pmem*" --look "${BIND%/*}/*[0-9].*" "$@"
	echo "$faults_device" >"$UNBIND" 2>/dev/null || :
	is_empty "$faults_bound: the next bind" bind_error "$faults_device"
	check "$faults_bound: and a read" read_sectors "$faults_disk" 0 8
}

# fill_disk DISK: writes a pattern to all of it.
fill_disk() {
	pmem-io fill "/dev/$1"
}

# check_data NAME DISK: 1 row: all of the disk but its bad blocks has that pattern.
check_data() {
	check "$1: the data" has_pattern "$2"
}

# has_pattern DISK: what check_data checks.
has_pattern() {
	faults_from=0
	# A disk in sector mode has no badblocks.
	[ ! -e "/sys/block/$1/badblocks" ] || while read -r faults_bad faults_count; do
		[ $((faults_bad * 512)) = $faults_from ] ||
			pmem-io verify "/dev/$1" --direct --offset $faults_from --length $((faults_bad * 512 - faults_from)) || return 1
		faults_from=$(((faults_bad + faults_count) * 512))
	done <"/sys/block/$1/badblocks"
	pmem-io verify "/dev/$1" --direct --offset $faults_from
}

# check_provider NAMESPACE…: 31 rows each: binds and unbinds namespaces of 32 MiB that have an error, one by one and in each mode, changes
# their lists, and repairs. They are in raw mode, and there is no other.
check_provider() {
	# The kernel does not look whether it gets memory for page tables of the direct map (phys_pud_init), with any driver.
	spare_allocations_in alloc_low_pages
	for faults_namespace; do
		echo "$faults_namespace" >"$UNBIND"
	done
	for faults_namespace; do
		for faults_mode in raw fsdax sector; do
			faults_disk=$(make_namespace -e "$faults_namespace" -m $faults_mode | jq -r .blockdev)
			faults_device=$(device_of_disk "$faults_disk")
			faults_list=$ND/$faults_device/errors/list
			case $faults_mode:$faults_namespace in
			# Read-only, because nd_btt can't wait for the host's flush: it has what is left of the other modes.
			"sector:$(virtio_ns)")
				cat "/dev/$faults_disk" >/tmp/faults_data
				faults_look=has_faults_data
				;;
			*)
				fill_disk "$faults_disk"
				faults_look=has_pattern
				;;
			esac
			check_list_and_repair "$faults_namespace, $faults_mode"
			check_bind_with_error "$faults_namespace, $faults_mode"
			check "$faults_namespace, $faults_mode: the data" $faults_look "$faults_disk"
			echo "$faults_device" >"$UNBIND"
			rm -f /tmp/faults_data
		done
	done
}

# has_faults_data DISK: it holds what was read from it before.
has_faults_data() {
	cmp "/dev/$1" /tmp/faults_data
}

# check_bind_with_error NAME: 5 rows, for the device faults_device, its disk faults_disk and its list faults_list. It stays bound.
check_bind_with_error() {
	# In the data.
	faults_error="16777216 4096"
	# A disk in sector mode has no badblocks.
	faults_badblocks=none
	[ "$faults_mode" = sector ] || faults_badblocks='[0-9]+ 8'
	echo "add $faults_error" >"$faults_list"
	echo "$faults_device" >"$UNBIND"
	# Where the bind succeeds in spite of a fault, the error is in both lists.
	check_bind "$1" "$faults_device" "$faults_disk" "; ok none" "; ok $faults_error log\\+$faults_badblocks" \
		--then "run=cat $faults_list /sys/block/$faults_disk/badblocks 2>/dev/null || echo none"
	is "$1: the error is listed" "$(cat "$faults_list")" "$faults_error log"
	check_faults "$1: unbind" "ok; none; ok; ok $faults_error log|$ERRORS; $faults_disk; Device or resource busy \(os error 16\); ok $faults_error log" \
		"write=$UNBIND=$faults_device" --look "/sys/block/pmem*" --then "-write=$BIND=$faults_device" --then "run=cat $faults_list"
	echo "drop $faults_error" >"$faults_list"
}

# check_list_and_repair NAME: 5 rows for the same device, or 3 in sector mode, where nobody knows which block has which memory.
check_list_and_repair() {
	faults_add="write=$faults_list=add 16777216 12288"
	faults_all="16777216 12288 user" faults_rest='16777216 4096 user\+16785408 4096 user' faults_none=
	set -- "$1" --show "$faults_list"
	if [ "$faults_mode" != sector ]; then
		set -- "$@" --show "/sys/block/$faults_disk/badblocks"
		faults_all="$faults_all; [0-9]+ 24" faults_rest="$faults_rest; [0-9]+ 8\\+[0-9]+ 8" faults_none="; "
	fi
	faults_where=$1
	shift
	check_faults "$faults_where: add" "ok; $faults_all|$ERRORS; $faults_none" "$faults_add" \
		--before "write=$faults_list=drop 16777216 12288" "$@"
	check_faults "$faults_where: drop" "ok; $faults_rest|$ERRORS; $faults_all" "write=$faults_list=drop 16781312 4096" \
		--before "$faults_add" "$@"
	if [ "$faults_mode" != sector ]; then
		echo 1 >"/sys/block/$faults_disk/errors/overwrite_heals"
		faults_data=$(($(cat "$ND/$faults_device/resource") - $(cat "$ND/$faults_namespace/resource")))
		check_faults "$faults_where: repair" "ok 4096; $faults_rest" "pwrite=/dev/$faults_disk=$((16781312 - faults_data))=4096" \
			--before "$faults_add" "$@"
		# Zeros so far.
		pmem-io fill "/dev/$faults_disk" --offset $((16781312 - faults_data)) --length 4K
	fi
	echo "drop 16777216 12288" >"$faults_list"
	is_empty "$faults_where: nothing is listed" cat "$faults_list"
	[ "$faults_mode" = sector ] || is_empty "$faults_where: nor is a bad block" cat "/sys/block/$faults_disk/badblocks"
}

# check_results FAILURE NAME ALLOWED ARGUMENTS…: FAILURE is one of the two texts above.
check_results() {
	faults_failure=$1 faults_name=$2 faults_allowed=$3
	shift 3
	faults_status=0
	pmem-io fail-nth "$@" >/tmp/faults 2>&1 || faults_status=$?
	faults_seen="nothing could fail"
	! grep -q '^[0-9]* faults, first' /tmp/faults || faults_seen="something could fail"
	# 1 if all results are allowed; 2 if this is no regular expression.
	faults_others=0
	sed 's/^[^:]*: //' /tmp/faults | grep -qvxE "$faults_allowed" || faults_others=$?
	if [ $faults_status != 0 ] || [ $faults_others != 1 ]; then
		not_ok "$faults_name"
	elif [ "$faults_seen" = "$faults_failure" ]; then
		not_ok "$faults_name: $faults_seen"
	else
		ok "$faults_name"
	fi
	sed 's/^/# /' /tmp/faults
}
