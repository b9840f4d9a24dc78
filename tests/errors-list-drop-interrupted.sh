#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A signal ends a drop of many pages: those that were read are off the list, and the rest stays.
# vm: files
. "$(dirname "$0")/lib/test.sh"

HUNG=/proc/sys/kernel/hung_task_timeout_secs
hung=$(cat $HUNG)

cleanup() {
	echo "$hung" >$HUNG
	forget_errors "$disk"
	unload_driver
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
plan 7
load_driver
# The unbind waits until the drop has ended, which may take long.
echo 0 >$HUNG
namespace=$(e820_ns)
disk=$(raw_disk "$namespace")
list=$ND/$namespace/errors/list
size=$((340 << 20))
echo "add 0 $size" >"$list"
sh -c "exec env printf 'drop 0 $size' >$list" 2>/tmp/dropping &
dropping=$!
check "some are dropped" wait_for 30 sh -c "! grep -q '^0 ' $list"
kill -KILL $dropping 2>/dev/null || :
wait $dropping 2>/dev/null || :
check "the rest is listed" grep -q . "$list"
first=$(cut -d ' ' -f 1 "$list" | head -n 1)
check_fails "and can't be read" pmem-io pread --direct "/dev/$disk" --offset "$first" --length 512
echo "drop 0 $size" >"$list"
is_empty "the next drop ends it" cat "$list"

echo "add 0 $size" >"$list"
sh -c "exec env printf 'drop 0 $size' >$list" 2>/tmp/dropping &
dropping=$!
wait_for 30 sh -c "! grep -q '^0 ' $list"
check "another drop is under way" grep -q . "$list"
echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/unbind"
status=0
wait $dropping || status=$?
is "an unbind lets a drop end" "$status" 0
echo "$namespace" >"/sys/bus/nd/drivers/$DRIVER/bind"
settle
is_empty "bound again, nothing is listed" cat "$list"
