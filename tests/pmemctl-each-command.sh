#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Each command of pmemctl gives the right answer and status for a mounted namespace with one error in a file.
# quick
# vm: three
. "$(dirname "$0")/lib/test.sh"

STATE=/tmp/each-state

cleanup() {
	[ -z "${holder:-}" ] || kill "$holder"
	umount "$MNT"
	rm -rf "$STATE" /tmp/each.*
	forget_errors "$disk"
	wipefs -aq "/dev/$disk"
	unload_both_drivers
} 2>/dev/null

# answer FILTER COMMAND OF pmemctl…: its status, and what jq takes from its JSON.
answer() {
	answer_filter=$1 answer_status=0
	shift
	pmemctl "$@" >/tmp/each.json 2>/tmp/each.err || answer_status=$?
	echo "$answer_status $(jq -rc "$answer_filter" /tmp/each.json | tr '\n' ' ')"
}

# says TEXT COMMAND OF pmemctl…: its status, and whether it prints the text.
says() {
	says_text=$1 says_status=0
	shift
	pmemctl "$@" >/tmp/each.out 2>&1 || says_status=$?
	sed 's/^/# /' /tmp/each.out >&2
	echo "$says_status $(grep -cF -- "$says_text" /tmp/each.out)"
}

need_both_drivers
need jq filefrag
plan 20
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
load_driver
disk=$(e820_disk)
namespace=$(e820_ns)
make_fs ext4 "$disk"
mount_dax "$disk"
dd if=/dev/urandom of=/tmp/each.backup bs=4096 count=64 status=none
cp /tmp/each.backup "$MNT/file"
sync
sector=$(sector_of "$MNT/file" 40960)
offset=$((sector * 512))
echo "$sector 8" >"/sys/block/$disk/badblocks"

is "list" "$(answer '.namespaces[0] | "\(.driver) \(.bad)"' list --json "$disk")" \
	"0 $DRIVER [{\"offset\":$offset,\"length\":4096}] "
is "status" "$(answer '.regions[].namespaces[] | select(.disk == "'"$disk"'") | "\(.driver) \(.bad_sectors)"' status --state-dir $STATE --json)" \
	"1 $DRIVER 8 "
is "status --check" "$(says 'PMEM CRITICAL' status --state-dir $STATE --check)" "2 1"
is "metrics" "$(says 'pmem_bad_bytes' metrics --state-dir $STATE | cut -d ' ' -f 1)" 0
is "errors" "$(answer '.errors[] | "\(.disk_offset) \(.owner.paths[0]) \(.owner.file_offset)"' errors --json "$disk")" "1 $offset $MNT/file 40960 "
is "errors of the file" "$(answer '.errors | length' errors --json "$MNT/file")" "1 1 "
is "doctor" "$(says "bad-blocks" doctor "$disk" | cut -d ' ' -f 1)" 1
is "plan" "$(says fsdax plan "$namespace" | cut -d ' ' -f 1)" 0
is "layout" "$(says "ext4" layout "$disk" | cut -d ' ' -f 1)" 0
is "lease" "$(says held lease "$MNT/file" -- echo held)" "0 1"
is "errors save" "$(says 4K errors save --state-dir $STATE "$disk" | cut -d ' ' -f 1)" 0
cat /proc/self/maps >/tmp/each.maps
is "explain" "$(says "not mapped" explain --maps /tmp/each.maps --addr 0x1000 | cut -d ' ' -f 1)" 4
pmemctl monitor --json --now "$disk" >/tmp/each.events 2>/dev/null &
holder=$!
wait_for 30 grep -q '"complete":true' /tmp/each.events || :
kill $holder
status=0
wait $holder || status=$?
holder=
is "monitor" "$status $(jq -r 'select(.complete) | .disk_offset' /tmp/each.events)" "0 $offset"
is "scrub" "$(says 4K scrub --state-dir $STATE "$disk" | cut -d ' ' -f 1)" 1
is "quarantine" "$(answer '"\(.quarantined) \(.in_use)"' quarantine --json "$MNT")" "0 0 4096 "
is "repair" "$(answer '.pieces[] | "\(.file_offset) \(.result)"' repair --trust-list --json "$MNT/file" --from /tmp/each.backup)" "0 40960 repaired "
is "the file is right" "$(cmp "$MNT/file" /tmp/each.backup && echo same)" same
# The list was saved since the system was started, so it is not older than the kernel's: nothing is restored.
is "errors restore" "$(says 4K errors restore --state-dir $STATE "$disk")" "3 0"
is "errors forget" "$(says 4K errors forget "$disk" "$offset" 4096 | cut -d ' ' -f 1)" 0
umount "$MNT"
load_both_drivers
is "swap-driver" "$(says "$(other_driver)" swap-driver --to "$(other_driver)" "$disk" | cut -d ' ' -f 1) $(driver_of "$namespace")" "0 $(other_driver)"
