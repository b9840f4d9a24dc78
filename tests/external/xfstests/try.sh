#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# try.sh PMEM-CHECK: tests the runner of xfstests on a stand-in for them: guest, devices, settings, the meaning of the output, the
# comparison of drivers, that tests share a guest, and that a run resumes after an interruption.
set -eu

cd "$(dirname "$0")/../../.."
check=$1 file=build/suites/xfstests/standin.json output=build/suites/xfstests/standin.output
mkdir -p build/suites/xfstests
rm -f $file

standin() {
	status=0
	"$check" --xfstests tests/external/xfstests/standin --fstyp ext4 "$@" >$output 2>&1 || status=$?
	cat $output
}

# result_is TEST DRIVER VERDICT REASON
result_is() {
	result=$(python3 -c 'import json, sys; run = json.load(open(sys.argv[1]))["tests"][sys.argv[2]][sys.argv[3]]; print(run["verdict"], run["reason"])' \
		$file "ext4/always/generic/$1" "$2")
	[ "$result" = "$3 $4" ] || {
		printf 'error: %s under %s: expected "%s %s", seen "%s"\n' "$1" "$2" "$3" "$4" "$result"
		exit 1
	}
}

standin ext4/always/generic/001
[ "$status" = 0 ]
result_is 001 nd_pmem pass ''
result_is 001 rust_pmem pass ''

# Resumes as if the run before had been interrupted. A failure without a result of nd_pmem is a failure.
standin --resume --jobs 1 --driver rust_pmem 'ext4/always/*'
[ "$status" = 1 ]
result_is 001 nd_pmem pass ''
result_is 002 rust_pmem skip 'this is only a stand-in'
result_is 003 rust_pmem fail 'status 1: another output: one'
if [ "$(grep -c ' booted in ' $output)" != 1 ]; then
	echo 'error: the two tests did not share a guest'
	exit 1
fi
if grep -q 'generic/001 *rust_pmem' $output; then
	echo 'error: what had been run was run again'
	exit 1
fi
