#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl scrub finds unlisted pages that fail with a machine check, keeps its rate, and resumes after SIGTERM or
# SIGKILL.
#
# It works beside other I/O, and leaves scrubbing to a platform that does it.
# vm: provider
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"
. "$(dirname "$0")/lib/provider.sh"

STATE=/tmp/scrub

cleanup() {
	[ -z "${writer:-}" ] || kill "$writer" 2>/dev/null
	umount "$MNT" 2>/dev/null
	umount /proc/sys/kernel/random/boot_id 2>/dev/null
	provider unmap ""
	provider_cleanup
	rm -rf "$STATE"
}

# scrub OPTION…: prints the exit status; its output is in /tmp/scrub.json.
scrub() {
	scrub_status=0
	pmemctl scrub --json --state-dir "$STATE" "$@" "$DISK" >/tmp/scrub.json 2>/tmp/scrub.err || scrub_status=$?
	echo "$scrub_status"
}

# scrub_field EXPRESSION: a field of that output.
scrub_field() {
	jq -cr "$1" /tmp/scrub.json
}

# stop_early SIGNAL: ends a scrub on its way.
stop_early() {
	pmemctl scrub --state-dir "$STATE" --rate 4M "$DISK" >/dev/null 2>&1 &
	scrub=$!
	wait_for 60 has_come 1
	kill -"$1" $scrub
	wait $scrub 2>/dev/null || :
}

# has_come BYTES: the saved state records this progress.
has_come() {
	[ "$(jq -r .state.done "$STATE"/scrub-*.json 2>/dev/null || echo 0)" -ge "$1" ]
}

# is_listed RANGE: the disk's badblocks have it.
is_listed() {
	badblocks_of "$DISK" | grep -qF "$1"
}

need jq pmem-io
plan 45
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
# ---- a platform that scrubs ----

provide scrub=1
is "where the platform does it, it is left to it" "$(scrub)" 1
check "with the command" grep -q "ndctl start-scrub ndbus" /tmp/scrub.err
is "unless it is wanted" "$(scrub --anyway)" 0
is "a healthy disk: nothing" "$(scrub_field '[.found, .known]')" '[[],[]]'
check_fails "a rate of nothing is refused" pmemctl scrub --rate 0 "$DISK"
check_fails "what is not there is refused" pmemctl scrub pmem99
check_fails "who is not root is refused" setpriv --reuid=1000 --clear-groups pmemctl scrub "$DISK"

# ---- pages that fail ----

provider_cleanup
provide bad=20M+4K commands=0 dimm=0
size=$(blockdev --getsize64 "/dev/$DISK")
for offset in 8M 36868K 36872K 63M; do
	provider unmap "$offset"
done
is "four bad pages are not listed" "$(badblocks_of "$DISK")" '40960+8'

# ---- stopped and resumed ----

begun=$(date +%s)
pmemctl scrub --json --state-dir "$STATE" --rate 2M "$DISK" >/tmp/scrub.json 2>/tmp/scrub.err &
scrub=$!
wait_for 30 has_come $((9 << 20))
kill -STOP $scrub
check_fails "a second one at the same time is refused" pmemctl scrub --state-dir "$STATE" "$DISK"
kill -TERM $scrub
kill -CONT $scrub
status=0
wait $scrub || status=$?
is "SIGTERM: status 4" "$status" 4
is "it says that it is not complete" "$(scrub_field .complete)" false
is "what was found by then" "$(scrub_field .found)" '[{"offset":8388608,"length":4096}]'
is "is listed" "$(badblocks_of "$DISK")" '16384+8 40960+8'
done=$(scrub_field .done)
check "it was far from its end" test "$done" -lt $((40 << 20))

pmemctl scrub --json --state-dir "$STATE" --rate 2M "$DISK" >/tmp/scrub.json 2>/tmp/scrub.err &
scrub=$!
wait_for 30 is_listed '73736+16'
# An error that it has found is saved at once, not when the next 8 MiB begin.
wait_for 30 grep -q 37752832 "$STATE"/scrub-*.json
kill -KILL $scrub
wait $scrub 2>/dev/null || :
now=$(jq -r .state.done "$STATE"/scrub-*.json)
check "SIGKILL: it is saved how far it has come" test "$now" -gt "$done"
is "it goes on, and finds something: status 1" "$(scrub --rate 8M)" 1
seconds=$(($(date +%s) - begun))
is "from there" "$(scrub_field .from)" "$now"
is "to the end" "$(scrub_field '"\(.complete) \(.done)"')" "true $size"
is "each page that is bad, those that touch as one" "$(scrub_field .found)" \
	'[{"offset":8388608,"length":4096},{"offset":37752832,"length":8192},{"offset":66060288,"length":4096}]'
check_schema scrub /tmp/scrub.json
is "all are listed" "$(badblocks_of "$DISK")" '16384+8 40960+8 73736+16 129024+8'
# 36 MiB at one rate, and 28 at the other.
check "at no more than these rates" test "$seconds" -ge 20
check "and not much less" test "$seconds" -le 300
is_empty "nothing of it is left behind" find "$STATE" -name '*.json'

# ---- a second run ----

is "again: status 1, as something is known to be bad" "$(scrub)" 1
is "nothing new" "$(scrub_field .found)" '[]'
is "what is known was not touched" "$(scrub_field '[.known[].length] | add')" $((5 * 4096))
is "what people see" "$(pmemctl scrub --state-dir "$STATE" "$DISK" | tail -n 1 | awk '{ print $1, $2, $4, $5, $6, $7 }')" \
	"$DISK 64M 64M 20K 0 complete"

# ---- saved state that is not usable ----

stop_early TERM
saved=$(find "$STATE" -name 'scrub-*.json')
cp "$saved" /tmp/saved.json
head -c 100 /tmp/saved.json >"$saved"
is "cut off: begun anew" "$(scrub && scrub_field .from)" '1
0'
check "and it says so" grep -q 'started at the first byte' /tmp/scrub.err
jq -c '.state.done = 65536' /tmp/saved.json >"$saved"
is "edited: begun anew" "$(scrub && scrub_field .from)" '1
0'
echo ffff456789abcdef0123456789abcdef >/etc/machine-id
cp /tmp/saved.json "$saved"
is "of another machine: begun anew" "$(scrub && scrub_field .from)" '1
0'
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
cp /tmp/saved.json "$saved"
is "whole: it goes on" "$(scrub && scrub_field '.from > 0')" '1
true'
cp /tmp/saved.json "$saved"
is "--restart: begun anew" "$(scrub --restart && scrub_field .from)" '1
0'

# ---- the machine stops ----

stop_early KILL
echo 00000000-0000-0000-0000-000000000001 >/tmp/boot_id
mount --bind /tmp/boot_id /proc/sys/kernel/random/boot_id
is "what was being read is skipped" "$(scrub && scrub_field '.suspected | length')" '1
1'
check "the skipped place is reported" grep -q 'the machine stopped when this was read; --retry' /tmp/scrub.err
is "by the next one, too" "$(scrub && scrub_field '"\(.from) \(.suspected | length)"')" '1
0 1'
is "until it is tried again" "$(scrub --retry && scrub_field .suspected)" '1
[]'
umount /proc/sys/kernel/random/boot_id

# ---- the disk goes away ----

provider unmap ""
provider_cleanup
provide commands=0 dimm=0
pmemctl scrub --state-dir "$STATE" --rate 2M "$DISK" >/dev/null 2>/tmp/scrub.err &
scrub=$!
wait_for 30 has_come 1
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
status=0
wait $scrub || status=$?
is "the disk is unbound: an error" "$status" 1
check "that says so" grep -qx 'pmemctl: reading at byte [0-9]*: the disk has gone' /tmp/scrub.err
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
settle
is_empty "nothing of it is listed" badblocks_of "$DISK"

# ---- beside other I/O ----

# In the other half of the memory: nd_pmem crashes on a write to an unmapped page.
provider_cleanup
provide start=$((576 << 20))
make_fs ext4 "$DISK"
mount_dax "$DISK"
fallocate -l 16M "$MNT/file"
pmem-io fill "$MNT/file"
(
	# Not in the middle of a command.
	trap 'exit 0' TERM
	while :; do
		pmem-io fill "$MNT/file" --offset 4M --length 4M
		pmem-io map-write "$MNT/file" --offset 8M --length 4M
	done
) >/dev/null 2>&1 &
writer=$!
address=$(pmem-io phys "$MNT/file" --offset 14M)
provider unmap $((address - (576 << 20)))
is "under a mounted file system: the page is found" "$(scrub)" 1
is "that is in the file" "$(scrub_field .found)" "[{\"offset\":$((address - (576 << 20))),\"length\":4096}]"
is "pmemctl errors reports the file and the offset" "$(pmemctl errors --json "$MNT/file" | jq -c '[.errors[].owner.file_offset]')" "[$((14 << 20))]"
kill "$writer"
wait "$writer" 2>/dev/null || :
writer=
check "what else was written is there" pmem-io verify "$MNT/file" --length 8M
umount "$MNT"
