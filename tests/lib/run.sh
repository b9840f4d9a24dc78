#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# run.sh TEST…: runs selftests without a kernel tree, and prints KTAP like kselftest: the lines of each test as
# comments, and one result line per test. The exit status is 1 if a test failed.
set -u

cd "$(dirname "$0")/.." || exit 1
timeout=$(sed -n 's/^timeout=//p' settings)
failed=0 number=0

# reported TEST: how many oopses and, unless the test expects some, warnings the kernel has had, and whether there was a bad page
# (32) or a soft lockup (16384).
reported() {
	cat /sys/kernel/oops_count
	grep -q '^# expect-splat: ' "$1" || cat /sys/kernel/warn_count
	echo $(($(cat /proc/sys/kernel/tainted) & (32 | 16384)))
}

printf 'TAP version 13\n1..%d\n' $#
for test in "$@"; do
	number=$((number + 1))
	printf '# timeout set to %s\n# selftests: rust_pmem: %s\n' "$timeout" "${test##*/}"
	before=$(reported "$test")
	# The status is that of the test, not of sed.
	status=$({
		{
			timeout --foreground "$timeout" sh "$test" 2>&1 3>&-
			echo $? >&3
		} | sed -u 's/^/# /' >&4
	} 3>&1) 4>&1
	if [ "$status" -eq 0 ] && [ "$(reported "$test")" != "$before" ]; then
		echo "# the kernel has reported a fault meanwhile: see dmesg"
		status=1
	fi
	case $status in
	0) printf 'ok %d selftests: rust_pmem: %s\n' $number "${test##*/}" ;;
	4) printf 'ok %d selftests: rust_pmem: %s # SKIP\n' $number "${test##*/}" ;;
	124) printf 'not ok %d selftests: rust_pmem: %s # TIMEOUT %d seconds\n' $number "${test##*/}" "$timeout" ;;
	*) printf 'not ok %d selftests: rust_pmem: %s # exit=%d\n' $number "${test##*/}" "$status" ;;
	esac
	case $status in
	0 | 4) ;;
	*) failed=1 ;;
	esac
done
exit $failed
