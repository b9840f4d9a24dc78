#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A listed sector is never readable while errors around it are added, dropped and repaired.
# vm: files 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

SECONDS_=6
AT=$((268435456 + 8192))

cleanup() {
	wait
	forget_errors "${disk:-}"
	unload_driver
}

# check_unreadable NAME COMMAND…: no read of the sector succeeds while the command runs.
check_unreadable() {
	unreadable_name=$1
	shift
	places "$disk" read --offset $AT --stride 0 --count 100 --length 512 --seconds $SECONDS_ >/tmp/answers &
	reader_pid=$!
	"$@"
	wait $reader_pid
	sed 's/^/# /' /tmp/answers
	is "no read of it succeeds while $unreadable_name" "$(sed 's/: .*//' /tmp/answers)" 'Input/output error'
}

# add_and_drop: adds and drops each range of standard input.
add_and_drop() {
	awk '{ print "add", $0; print "drop", $0 }' | pmem-io lines "$list" --seconds $SECONDS_ >>/tmp/refused
}

# add_all_drop_all: adds all ranges, then drops all.
add_all_drop_all() {
	{
		sed 's/^/add /' /tmp/around
		sed 's/^/drop /' /tmp/around
	} | pmem-io lines "$list" --seconds $SECONDS_ >>/tmp/refused
}

repair_neighbours() {
	while kill -0 $reader_pid 2>/dev/null; do
		edit_list add "$list" </tmp/around >>/tmp/refused
		places "$disk" write --offset $((AT + 8192)) --stride 8K --count 100 >>/tmp/written
		places "$disk" write --offset $((AT - 8192 * 100)) --stride 8K --count 100 >>/tmp/written
	done
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no errors/list"
need pmem-io
plan 6
load_driver
for namespace in $(namespaces e820); do
	[ "$(cat "$ND/$namespace/size")" -lt $AT ] || break
done
disk=$(raw_disk "$namespace")
list=$(errors_list_of "$namespace")
forget_errors "$disk"
: >/tmp/refused
: >/tmp/written
echo "add $AT 512" >"$list"
{
	list_every $((AT - 8192 * 100)) 8192 100 512
	list_every $((AT + 8192)) 8192 100 512
} >/tmp/around
check_unreadable "hundreds are added and dropped around it" add_all_drop_all
check_unreadable "its neighbours are repaired by writes" repair_neighbours
is "which succeeds" "$(sort -u /tmp/written)" 'ok: 100'

# More than badblocks can hold, far apart.
list_every 0 524288 400 512 | edit_list add "$list"
list_every $((AT + 1024)) 2048 3 512 >/tmp/near
check_unreadable "others are, and badblocks is full" add_and_drop </tmp/near
is_empty "all of that was accepted" sort -u /tmp/refused
list_every 0 524288 400 512 | edit_list drop "$list"
is "it alone is listed at the end" "$(cut -d ' ' -f 1,2 "$list")" "$AT 512"
