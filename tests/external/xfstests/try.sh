#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# try.sh PMEM-CHECK: what runs xfstests, tried on a stand-in of the same form: guest, devices, settings, what its words mean, the
# comparison, and that a run which was cut off goes on where it was.
set -eu

cd "$(dirname "$0")/../../.."
check=$1 file=build/suites/xfstests/standin.json said=build/suites/xfstests/standin.said
mkdir -p build/suites/xfstests
rm -f $file

standin() {
	status=0
	"$check" --xfstests tests/external/xfstests/standin --fstyp ext4 "$@" >$said 2>&1 || status=$?
	cat $said
}

# comes_to TEST DRIVER VERDICT REASON
comes_to() {
	came=$(python3 -c 'import json, sys; run = json.load(open(sys.argv[1]))["tests"][sys.argv[2]][sys.argv[3]]; print(run["verdict"], run["reason"])' \
		$file "ext4/always/generic/$1" "$2")
	[ "$came" = "$3 $4" ] || {
		printf 'error: %s under %s came to "%s", not "%s %s"\n' "$1" "$2" "$came" "$3" "$4"
		exit 1
	}
}

standin ext4/always/generic/001
[ "$status" = 0 ]
comes_to 001 nd_pmem pass ''
comes_to 001 rust_pmem pass ''

# As if the run before had been cut off. What fails with no word of nd_pmem is a failure.
standin --resume --driver rust_pmem 'ext4/always/*'
[ "$status" = 1 ]
comes_to 001 nd_pmem pass ''
comes_to 002 rust_pmem skip 'this is only a stand-in'
comes_to 003 rust_pmem fail 'status 1: another output: one'
if grep -q 'generic/001 *rust_pmem' $said; then
	echo 'error: what had been run was run again'
	exit 1
fi
