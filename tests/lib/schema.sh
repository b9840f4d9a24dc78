# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# The schemas of pmemctl's output.

# check_schema COMMAND FILE: the output in the file, of --json, is as tools/pmemctl/schema says.
check_schema() {
	check "the output of pmemctl $1 is as its schema says" has_schema "$@"
}

has_schema() {
	schema_problems=$(jq -nr --slurpfile schema "$CHECKOUT/tools/pmemctl/schema/pmemctl-$(echo "$1" | tr ' ' -).json" \
		--slurpfile values "$2" -f "$TESTS/lib/schema.jq") || return
	[ -z "$schema_problems" ] || {
		echo "$schema_problems"
		return 1
	}
}
