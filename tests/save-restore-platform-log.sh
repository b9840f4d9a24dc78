#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Errors that the platform logs come back by themselves and are not saved; errors listed by hand are saved.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	provider_cleanup
	rm -rf /tmp/state
}

save() {
	pmemctl errors save --all --state-dir /tmp/state --json >/tmp/save.json
}

# saved_offsets: saves, and prints the offsets in the file.
saved_offsets() {
	save
	jq -r '.list.errors[].offset' /tmp/state/*.json >/tmp/offsets
	sort -n /tmp/offsets | xargs
}

# restore_result: restores, and prints the result and the number of sectors.
restore_result() {
	pmemctl errors restore "$DISK" --state-dir /tmp/state --json | jq -r '.reports[] | "\(.result) \(.restored_sectors)"'
}

plan 9
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
provide scrub=1 bad=1M+4K
is "the log's error is listed" "$(badblocks_of "$DISK")" '2048+8'
save
is_empty "and not saved" find /tmp/state -name '*.json'
is "which is said" "$(jq -r '.reports[].has_log' /tmp/save.json)" true
echo "8192 8" >"/sys/block/$DISK/badblocks"
is "another is, that was written to the list" "$(saved_offsets)" 4194304
provider_cleanup
provide scrub=1 bad=1M+4K
is "a new platform knows its own" "$(badblocks_of "$DISK")" '2048+8'
is "the other is restored" "$(restore_result)" 'restored 8'
is "both are listed" "$(badblocks_of "$DISK")" '2048+8 8192+8'
provider bad 4M+4K
is "what the log learns of later stays saved" "$(saved_offsets)" 4194304
provider_cleanup
provide bad=1M+4K
rm -r /tmp/state
is "without a log, all is saved" "$(saved_offsets)" 1048576
