#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl status shows drivers, DAX, errors, saved lists and scrubs; --check is a monitoring plugin; metrics agree.
#
# A namespace that nd_pmem serves although modprobe.d prefers rust_pmem is named with the reason.
# vm: files
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"

STATE=/tmp/status-state
RULE=/etc/modprobe.d/pmemctl-status.conf

cleanup() {
	umount "$MNT" 2>/dev/null
	rm -rf "$STATE" "$RULE" /tmp/status.prom
	forget_errors "$disk"
	wipefs -aq "/dev/$disk"
	unload_driver
}

# status_field EXPRESSION: a field of the namespace in the JSON output.
status_field() {
	pmemctl status --state-dir "$STATE" --json | jq -cr ".regions[].namespaces[] | select(.disk == \"$disk\") | $1"
}

# status_of COMMAND…: its exit status; its output is in /tmp/status.out.
status_of() {
	status_code=0
	"$@" >/tmp/status.out 2>&1 || status_code=$?
	echo "$status_code"
}

check_status() {
	status_of pmemctl status --state-dir "$STATE" --check
}

# metric NAME LABEL: the value of the sample of the disk that has this label, too.
metric() {
	pmemctl metrics --state-dir "$STATE" | grep "^$1{.*disk=\"$disk\"" | grep -F -- "$2" | sed 's/.* //'
}

need jq wipefs lsblk
plan 36
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
load_driver
# Its NVDIMM has no namespace.
fresh_labels
count=$({
	namespaces ACPI.NFIT
	namespaces e820
} | wc -l)
disk=$(e820_disk)
make_fs ext4 "$disk"
mount_dax "$disk"

# ---- healthy ----

is "without errors: status 0" "$(status_of pmemctl status --state-dir "$STATE")" 0
is "the check is OK" "$(check_status)" 0
is "in one line with performance data" "$(cat /tmp/status.out)" \
	"PMEM OK - no errors in $count namespaces | bad_bytes=0B;;0;0 bad_ranges=0;;0;0"
is "the version of the output" "$(pmemctl status --json | jq .version)" 1
is "its driver" "$(status_field .driver)" "$DRIVER"
is "DAX and MAP_SYNC" "$(status_field '.mounts[] | "\(.directory) \(.dax) \(.map_sync)"')" "$MNT always true"
is "it was never scrubbed" "$(status_field .scrub)" null
umount "$MNT"
mount -o dax=never "/dev/$disk" "$MNT"
is "a mount without DAX" "$(status_field '.mounts[] | "\(.dax) \(.map_sync)"')" "never false"
umount "$MNT"
is "it is not mounted" "$(status_field .mounts)" '[]'

# ---- scrubbed ----

is "a scrub finds nothing" "$(status_of pmemctl scrub --anyway --state-dir "$STATE" "$disk")" 0
check "its end is known" test "$(status_field '.scrub.completed_ms / 1000 | floor')" -ge $(($(date +%s) - 60))
check "people see how long ago" sh -c "pmemctl status --state-dir $STATE | grep -q ' s ago'"
check "so does Prometheus" test "$(metric pmem_scrub_last_complete_timestamp_seconds '' | sed 's/\..*//')" -gt 0

# ---- errors ----

echo "8192 8" >"/sys/block/$disk/badblocks"
echo "16384 1" >"/sys/block/$disk/badblocks"
is "with errors: status 1" "$(status_of pmemctl status --state-dir "$STATE")" 1
check "bytes and ranges" grep -q ' 4608 in 2 ' /tmp/status.out
is "the check is CRITICAL" "$(check_status)" 2
is "with the disk" "$(cat /tmp/status.out)" \
	"PMEM CRITICAL - $disk: 4608 bad bytes, not saved | bad_bytes=4608B;;0;0 bad_ranges=2;;0;0"
is "ranges in JSON" "$(status_field '"\(.bad_sectors) \(.bad_ranges)"')" "9 2"
origin=user
[ "$DRIVER" = rust_pmem ] || origin=unknown
is "by origin" "$(status_field .origins)" "{\"$origin\":9}"
is "metrics have the same" "$(metric pmem_bad_bytes "origin=\"$origin\"")" 4608
is "and no other origin" "$(metric pmem_bad_bytes '' | sort -n | uniq -c | awk '{ print $1, $2 }' | xargs)" "8 0 1 4608"
is "ranges" "$(metric pmem_bad_ranges '')" 2
pmemctl errors save --state-dir "$STATE" --all --json >/tmp/save.json
check_schema "errors save" /tmp/save.json
pmemctl errors save --state-dir "$STATE" --all --follow --json >/tmp/follow.json 2>/dev/null &
follower=$!
wait_for 30 test -s /tmp/follow.json
kill $follower
check_schema "errors save follow" /tmp/follow.json
pmemctl status --state-dir "$STATE" --json >/tmp/status.json || :
check_schema status /tmp/status.json
is "saved" "$(jq -c --arg disk "$disk" '[.regions[] | select(any(.namespaces[]; .disk == $disk)) | .saved, .saved_ms > 0]' /tmp/status.json)" '[true,true]'
is "saved: the check is CRITICAL" "$(check_status)" 2
check_fails "the check does not say otherwise" grep -q 'not saved' /tmp/status.out

# ---- metrics in a file ----

is "a file" "$(status_of pmemctl metrics --state-dir "$STATE" --output /tmp/status.prom)" 0
is "that all may read" "$(stat -c %a /tmp/status.prom)" 644
is "complete" "$(tail -n 1 /tmp/status.prom)" '# EOF'
is "a directory that does not exist is refused" "$(status_of pmemctl metrics --output /tmp/none/x.prom)" 1

# ---- the other driver ----

forget_errors_now "$disk"
disk=$(e820_disk)
is "the errors are forgotten" "$(status_field .bad_sectors)" 0
mkdir -p "${RULE%/*}"
echo 'softdep nd_pmem pre: rust_pmem' >"$RULE"
if [ "$DRIVER" = nd_pmem ]; then
	fallback="module not built for $(uname -r)" code=1
else
	fallback=null code=0
fi
is "rust_pmem is preferred: why it does not serve the disk" "$(status_field .fallback)" "$fallback"
is "the check is a WARNING then" "$(check_status)" "$code"

# ---- not root ----

is "a user other than root gets UNKNOWN" \
	"$(status_of setpriv --reuid=1000 --clear-groups pmemctl status --check)" 3
