# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helper for tests of pmemctl repair.

# run_repair ARGUMENT…: the exit status, and the result of each piece. The report is in /tmp/repair.json, messages are in
# /tmp/repair.err.
run_repair() {
	repair_status=0
	pmemctl repair --json "$@" >/tmp/repair.json 2>/tmp/repair.err || repair_status=$?
	echo "$repair_status $(jq -r '[.pieces[] | "\(.file_offset)+\(.length) \(.replaced) \(.kept) \(.result)"] | join(", ")' /tmp/repair.json)"
}
