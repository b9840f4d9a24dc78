# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For tests with more machine checks in a second than QEMU's monitor makes: the kernel's own injector puts them where the handler of the
# exception does, before those that want to know are told.

# injector_ready: loads it.
injector_ready() {
	modprobe mce-inject
	mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
	echo sw >/sys/kernel/debug/mce-inject/flags
}

# inject ADDRESS LSB: an uncorrected error of memory (Intel SDM volume 3, "IA32_MCi_STATUS MSRs"; the address is a physical one).
inject() {
	echo 0xbd000000000000c0 >/sys/kernel/debug/mce-inject/status
	echo $((0x80 | $2)) >/sys/kernel/debug/mce-inject/misc
	echo $(($1)) >/sys/kernel/debug/mce-inject/addr
	echo 0 >/sys/kernel/debug/mce-inject/bank
}

# inject_pages ADDRESS STRIDE FIRST LAST: of each stride, a page. With a breath where the kernel's own queue would be full, and lose some.
inject_pages() {
	inject_next=$3
	while [ "$inject_next" -le "$4" ]; do
		inject $(($1 + inject_next * $2)) 12
		inject_next=$((inject_next + 1))
		[ $((inject_next % 25)) -ne 0 ] || sleep 0.05
	done
}

# pages_listed NAMESPACE STRIDE COUNT: how many of the first COUNT pages at multiples of STRIDE are on the namespace's exact list.
pages_listed() {
	awk -v stride="$2" -v count="$3" '
		{ for (p = int($1 / stride); p * stride < $1 + $2 && p < count; p++)
			if ($1 <= p * stride && $1 + $2 >= p * stride + 4096) seen[p] = 1 }
		END { n = 0; for (p in seen) n++; print n }' "$ND/$1/errors/list"
}
