#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# kmemleak.sh: searches for leaks. Prints where each was allocated, and writes it to the kernel's log, which fails the
# test that has run before.
#
# The first scan only records the contents of objects that look lost; the second reports those that have not changed, and is 5 s old
# (mm/kmemleak.c).
leaks=/sys/kernel/debug/kmemleak
# The kernel's own: the first is freed only if the device waits for its probe when it is removed (drivers/base/dd.c); ramdax frees
# neither its DIMM nor its interleave set.
known='device_set_deferred_probe_reason|ramdax_register_'
# The kernel takes ten lines in five seconds.
most=5

# A test of lockdown, which ends with the guest.
! grep -q '\[integrity\]\|\[confidentiality\]' /sys/kernel/security/lockdown 2>/dev/null || exit 0
[ -e $leaks ] || {
	# debug-races has no kmemleak.
	! grep -q ' kmemleak_scan$' /proc/kallsyms || echo "leaked memory: debugfs is gone, so nobody knows" >/dev/kmsg
	exit 0
}
# It turns itself off when it has no memory.
echo scan >$leaks || {
	echo "leaked memory: kmemleak is off, so nobody knows" >/dev/kmsg
	exit 0
}
sleep 5
echo scan >$leaks
sed 's/^/# /' $leaks
awk -v known=$known -v most=$most '
	function report() {
		if (object != "" && trace !~ known && ++reported <= most) {
			# The kernel takes no longer text (PRINTKRB_RECORD_MAX).
			print substr("leaked memory: " object trace, 1, 900) >"/dev/kmsg"
			fflush("/dev/kmsg")
		}
		trace = ""
	}
	sub(/^unreferenced object /, "") { report(); object = $0; next }
	sub(/^ +/, "") && /^[^ ]+\+0x/ { trace = trace " " $0 }
	END { report() }
' $leaks
echo clear >$leaks
