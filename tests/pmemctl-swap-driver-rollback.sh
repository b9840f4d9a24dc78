#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl swap-driver keeps badblocks and the read-only state, and rolls back if the other driver fails to bind.
#
# --dry-run and bad arguments change nothing.
# vm: provider
# expect-splat: at sysfs_kf_seq_show+
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

cleanup() {
	umount $MNT 2>/dev/null
	unload_both_drivers
	rmmod pmem_provider
}

# swap_to DRIVER OPTION…: prints the result; the JSON is in /tmp/result.
swap_to() {
	pmemctl swap-driver --json --to "$@" >/tmp/result 2>/tmp/complaint || :
	jq -r '.reports[].result' /tmp/result
}

# result_field KEY: a field of that result.
result_field() {
	jq -r ".reports[0].$1" /tmp/result
}

# status_of COMMAND…: the exit status and the last line of the output.
status_of() {
	status=0
	output=$("$@" 2>&1) || status=$?
	echo "$status $(printf '%s\n' "$output" | tail -n 1)"
}

need_both_drivers
need pmemctl jq sfdisk setpriv
plan 38
provide pages=1 bad=40M+4K
load_both_drivers
other=$(other_driver)

# The other driver finds errors in badrange by itself; those that were written to badblocks are carried over.
is "at the start" "$(badblocks_of "$DISK")" 81920+8
echo "90112 8" >"/sys/block/$DISK/badblocks"
echo "98304 600" >"/sys/block/$DISK/badblocks"
bad=$(badblocks_of "$DISK")
is "a rehearsal" "$(swap_to "$other" --dry-run "$DISK")" would-be-moved
is "changes nothing" "$(driver_of "$NAMESPACE") $(badblocks_of "$DISK")" "$DRIVER $bad"
is "moved" "$(swap_to "$other" "$DISK")" moved
is "the list" "$(badblocks_of "$DISK")" "$bad"
is "sectors on it" "$(result_field bad_sectors)" 616
case $DRIVER in
rust_pmem) carried=0 ;; # They are in badrange, where nd_pmem finds them.
*) carried=608 ;;
esac
is "of these were carried" "$(result_field carried_sectors)" $carried
check_fails "a read there fails" read_sectors "$DISK" 90112 1
check "beside it, not" read_sectors "$DISK" 90120 8
is "the table says it" "$(pmemctl swap-driver --to "$DRIVER" "$DISK" | awk 'NR == 2 { $1 = $1; print }')" \
	"$DISK $NAMESPACE $other $DRIVER 64M 616 0 moved"
is "and back, still the list" "$(badblocks_of "$DISK")" "$bad"

blockdev --setro "/dev/$DISK"
is "read-only" "$(swap_to "$other" "$DISK") $(cat "/sys/block/$DISK/ro")" "moved 1"
blockdev --setrw "/dev/$DISK"
is "writable" "$(swap_to "$DRIVER" "$DISK") $(cat "/sys/block/$DISK/ro")" "moved 0"
echo 'start=8192, size=16384' | sfdisk -q --wipe never --label dos "/dev/$DISK"
blockdev --setro "/dev/${DISK}p1"
is "a read-only partition" "$(swap_to "$other" "$DISK") $(cat "/sys/block/$DISK/ro" "/sys/block/$DISK/${DISK}p1/ro" | tr '\n' ' ')" "moved 0 1 "
swap_to "$DRIVER" "$DISK" >/dev/null
write_sectors "$DISK" 0 8 </dev/zero
blockdev --rereadpt "/dev/$DISK"

# The range is claimed when the other driver binds.
pmem-io fill --direct --offset 8M --length 4M "/dev/$DISK"
provider hinder 1
is "the other does not take it" "$(swap_to "$other" "$DISK")" went-back
is "why" "$(result_field 'reasons[]')" "$other failed to bind: Device or resource busy (see dmesg)"
is "who has it" "$(result_field driver) $(driver_of "$NAMESPACE")" "$DRIVER $DRIVER"
is "its list" "$(badblocks_of "$DISK")" "$bad"
check "its data" pmem-io verify --direct --offset 8M --length 4M "/dev/$DISK"
is "the status" "$(provider hinder 1 && status_of pmemctl swap-driver --to "$other" "$DISK")" \
	"1 pmemctl: $DISK: $other failed to bind: Device or resource busy (see dmesg)"
is "the next time it does" "$(swap_to "$other" "$DISK")" moved

blockdev --setro "/dev/$DISK"
provider hinder 2
is "neither takes it" "$(swap_to "$DRIVER" "$DISK")" failed
is "what to do" "$(result_field 'reasons[]' | grep -c "it has no driver now; after the cause is fixed: ndctl enable-namespace $NAMESPACE")" 1
is "what it had" "$(result_field 'reasons[]' | sed -n 's/^its list of bad sectors had: //p' | tr ' \n' '+ ')" "81920+8 90112+8 98304+600 "
check "it was read-only" sh -c "jq -r '.reports[].reasons[]' /tmp/result | grep -q '^$DISK was read-only'"
is "asked again" "$(status_of pmemctl swap-driver "$NAMESPACE")" \
	"1 pmemctl: $NAMESPACE: it has no driver; bind one with: ndctl enable-namespace $NAMESPACE"
ndctl enable-namespace "$NAMESPACE" >/dev/null 2>&1
check "its data, once it is enabled" pmem-io verify --direct --offset 8M --length 4M "/dev/$DISK"
swap_to "$DRIVER" "$DISK" >/dev/null

# More entries than the sysfs file shows.
for sector in $(seq 100000 2 101108); do
	echo "$sector 1"
done >/tmp/many
while read -r entry; do
	echo "$entry" >"/sys/block/$DISK/badblocks" 2>/dev/null || break
done </tmp/many
is "a list that is longer than its file" "$(swap_to "$other" "$DISK") $(driver_of "$NAMESPACE")" "refused $DRIVER"
check "with that reason" sh -c "jq -r '.reports[].reasons[]' /tmp/result | grep -q 'can.t be carried over: .* longer than the kernel shows'"

for garbage in sda pmem "$DISK/.." region0 "" namespace0; do
	is "no name of a device: $garbage" "$(status_of pmemctl swap-driver "$garbage" | cut -c 1)" 2
done
is "not there" "$(status_of pmemctl swap-driver pmem77 namespace77.0 "$DISK")" '1 pmemctl: pmem77: no such disk; see "pmemctl list"'
is "another disk" "$(status_of pmemctl swap-driver /dev/vda)" "1 pmemctl: /dev/vda: vda is not persistent memory"
is "not root" "$(status_of setpriv --reuid 65534 pmemctl swap-driver --all | cut -d : -f 1-2)" "1 pmemctl: swap-driver needs root"
