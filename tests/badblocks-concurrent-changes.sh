#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Concurrent adds, drops, reads and repairs of errors leave errors/list correct, also while the bus binds another
# namespace.
#
# Runs in raw and in sector mode. RUST_PMEM_LONG=1 makes it longer.
# vm: files 2
# timeout: 200
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

case ${RUST_PMEM_LONG:-} in
'' | 0) EACH=10 ;;
*) EACH=60 ;;
esac
COUNT=400

cleanup() {
	touch /tmp/stress_over
	wait
	# Sector mode leaves its metadata in the memory.
	ndctl create-namespace -f -e "$namespace" -m raw >/dev/null 2>&1
	forget_errors "$(disk_of "$namespace")"
	unload_driver
}

# until_over COMMAND…: repeats the command until the test is over.
until_over() {
	until [ -e /tmp/stress_over ]; do
		"$@" >/dev/null 2>&1 || :
	done
}

rebind_other() {
	echo "$other" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	echo "$other" >"/sys/bus/nd/drivers/$DRIVER/bind"
}

# repair_pages: writes over the pages that are dropped and added. Lists the results.
repair_pages() {
	places "$disk" write --offset 8M --stride 16K --count $COUNT >>/tmp/repairs
}

# drop_and_add FIRST: commands that drop and add each page from FIRST on.
drop_and_add() {
	list_every "$1" 16384 $COUNT | awk '{ print "drop", $0; print "add", $0 }'
}

# test_changes NAME WRITES: 5 subtests, and one more with writes.
test_changes() {
	list=$(errors_list_of "$namespace")
	rm -f /tmp/stress_over /tmp/refused.* /tmp/repairs
	echo "drop 0 $(cat "$ND/$namespace/size")" >"$list"
	list_every 8388608 8192 $((2 * COUNT)) | edit_list add "$list"
	drop_and_add 8388608 | pmem-io lines "$list" --seconds $EACH >/tmp/refused.1 2>&1 &
	adder=$!
	drop_and_add $((8388608 + 8192)) | pmem-io lines "$list" --seconds $EACH >/tmp/refused.2 2>&1 &
	until_over cat "$list" &
	until_over rebind_other &
	[ -z "$2" ] || until_over repair_pages &
	drop_and_add 33554432 | pmem-io lines "$list" --seconds $EACH >/tmp/refused.3 2>&1
	wait $adder
	touch /tmp/stress_over
	wait
	is_empty "$1: what was added and dropped was accepted" sort -u /tmp/refused.*
	[ -z "$2" ] || is "$1: each write meanwhile has repaired its page" "$(sed 's/: .*//' /tmp/repairs | sort -u)" ok
	wait_for 60 rebind_other
	echo "drop 0 $(cat "$ND/$namespace/size")" >"$list"
	is_empty "$1: all dropped, nothing is listed" cat "$list"
	list_every 8388608 16384 $COUNT >/tmp/wanted
	edit_list add "$list" </tmp/wanted
	is "$1: what is added then is listed" "$(sorted_ranges "$list" | digest)" "$(digest </tmp/wanted)"
	rebind "$(device_of_disk "$disk")"
	is "$1: bound again as well" "$(sorted_ranges "$list" | digest)" "$(digest </tmp/wanted)"
	is_empty "$1: the other namespace has no errors" cat "$ND/$other/errors/list"
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no errors/list"
need pmem-io ndctl
plan 14
load_driver
for found in $(namespaces e820); do
	raw_disk "$found" >/dev/null
	case $(cat "$ND/$found/size") in
	67108864) namespace=$found ;;
	*) other=$found ;;
	esac
done
disk=$(disk_of "$namespace")
test_changes raw writes
is "raw: those listed can't be read" "$(places "$disk" read --offset 8M --stride 16K --count $COUNT)" "Input/output error: $COUNT"
is "raw: those between can" "$(places "$disk" read --offset 8200K --stride 16K --count $COUNT)" "ok: $COUNT"
echo "drop 0 67108864" >"$list"
echo "add 8388608 4096" | pmem-io lines "$list" --seconds $EACH >/tmp/refused.1 2>&1 &
written=$(places "$disk" write --offset 8M --stride 4K --count 1 --seconds $EACH)
wait
is "raw: an error that is added during a repair fails no write" "${written%: *} $(wc -l </tmp/refused.1)" "ok 0"
echo "drop 0 67108864" >"$list"
make_namespace -e "$namespace" -m sector -l 512 >/dev/null
disk=$(disk_of "$namespace")
test_changes sector ''
