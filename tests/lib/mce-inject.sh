# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests with more machine checks per second than QEMU's monitor can send. The kernel's mce-inject module
# passes them to the MCE decode chain.

# load_mce_inject: loads the module and selects injection in software.
load_mce_inject() {
	modprobe mce-inject
	mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
	echo sw >/sys/kernel/debug/mce-inject/flags
}

# mce_inject ADDRESS LSB [STATUS]: reports an uncorrected memory error at a physical address, or one with another status
# (Intel SDM volume 3, "IA32_MCi_STATUS MSRs").
mce_inject() {
	echo "${3:-0xbd000000000000c0}" >/sys/kernel/debug/mce-inject/status
	echo $((0x80 | $2)) >/sys/kernel/debug/mce-inject/misc
	echo $(($1)) >/sys/kernel/debug/mce-inject/addr
	echo 0 >/sys/kernel/debug/mce-inject/bank
}

# mce_inject_pages ADDRESS STRIDE FIRST LAST: reports one page per stride. Waits from time to time until the kernel passes the
# last one on, because its pool of records has a limited size (mce_gen_pool), and loses those that do not fit. The number of the
# next page is in /tmp/mce_next.
mce_inject_pages() {
	mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
	echo >/sys/kernel/tracing/trace
	echo 1 >/sys/kernel/tracing/events/mce/mce_record/enable
	inject_next=$3
	while [ "$inject_next" -le "$4" ]; do
		inject_address=$(($1 + inject_next * $2))
		mce_inject $inject_address 12
		[ $((inject_next % 25)) -ne 24 ] ||
			wait_for 30 grep -q "ADDR: $(printf '%016x' $inject_address)" /sys/kernel/tracing/trace
		inject_next=$((inject_next + 1))
		echo "$inject_next" >/tmp/mce_next
	done
	echo 0 >/sys/kernel/tracing/events/mce/mce_record/enable
}

# mce_raise_pages ADDRESS STRIDE FIRST LAST: the same, as exceptions of the processor, which lead to memory-failure recovery.
mce_raise_pages() {
	raise_next=$3
	while [ "$raise_next" -le "$4" ]; do
		host mce $(($1 + raise_next * $2))
		# One that comes while a processor is in the handler ends the guest.
		sleep 0.1
		raise_next=$((raise_next + 1))
		echo "$raise_next" >/tmp/mce_next
	done
}

# mce_raise_pages_at_bind ADDRESS STRIDE FIRST LAST: the same, while the memory is bound and unbound. With C they are only reported:
# recovery that comes before nd_pmem has its DAX device crashes the kernel.
mce_raise_pages_at_bind() {
	case $DRIVER in
	nd_pmem) mce_inject_pages "$@" ;;
	*) mce_raise_pages "$@" ;;
	esac
}

# mce_next: the number of the page that comes next: those before it were injected. The file may be about to be written.
mce_next() {
	until read -r mce_text </tmp/mce_next; do :; done
	echo "$mce_text"
}

# unlisted_pages LIST STRIDE FIRST NEXT: which of the pages at multiples of STRIDE, from number FIRST on and before NEXT, are not
# in this list: an errors/list, in bytes, or a badblocks, in sectors.
unlisted_pages() {
	case $1 in
	*/badblocks) inject_unit=512 ;;
	*) inject_unit=1 ;;
	esac
	awk -v unit=$inject_unit -v stride="$2" -v first="$3" -v end="$4" '
		{ start = $1 * unit; stop = start + $2 * unit
		  for (p = int(start / stride); p * stride < stop && p < end; p++)
			if (start <= p * stride && stop >= p * stride + 4096) seen[p] = 1 }
		END { for (p = first; p < end; p++) if (!(p in seen)) print p }' "$1"
}
