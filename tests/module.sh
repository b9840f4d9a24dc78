#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What rust_pmem.ko, as built, may not have: a way to panic, or a module to wait for besides those that it stands on.
set -eu

module=$(dirname "$0")/../rust_pmem.ko
status=0

panics=$(nm --undefined-only "$module" | grep -E 'panic|unwrap_failed|expect_failed|BUG' || :)
if [ -n "$panics" ]; then
	printf 'error: it can panic:\n%s\n' "$panics"
	status=1
fi

depends=$(objcopy --output-target=binary --only-section=.modinfo "$module" /dev/stdout | tr '\0' '\n' | sed -n 's/^depends=//p')
if [ "$depends" != libnvdimm,nd_btt ]; then
	printf 'error: it depends on "%s"\n' "$depends"
	status=1
fi
exit $status
