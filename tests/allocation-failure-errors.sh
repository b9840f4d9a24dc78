#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A change of the list of errors in which any one allocation fails is made wholly or not at all; a repair in a file forgets no error.
#
# Nor is an error forgotten that is reported while all allocations of the driver fail.
# debug
# vm: provider
# timeout: 600
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/fail-nth.sh"
. "$(dirname "$0")/lib/fs.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need_faults
plan 21
provide size=$((16 << 20)) pages=1 dimm=0
rmmod rust_pmem
insmod "$MODULE" inject=1
settle
LIST=$ND/$NAMESPACE/errors/list
BADBLOCKS=/sys/block/$DISK/badblocks
set -- --show "$LIST" --show "$BADBLOCKS"

check_faults "add" "ok; 65536 512 user; 128 1|$ERRORS; ; " "write=$LIST=add 65536 512" --before "write=$LIST=drop 0 1048576" "$@"
# In the middle of a range: the list needs memory for the second half.
check_faults "drop" "ok; 65536 4096 user\+73728 4096 user; 128 8\+144 8|$ERRORS; 65536 12288 user; 128 24" "write=$LIST=drop 69632 4096" \
	--before "write=$LIST=drop 0 1048576" --before "write=$LIST=add 65536 12288" "$@"
echo "drop 0 1048576" >"$LIST"
i=0
while [ "$i" -lt 200 ]; do
	echo "add $((i * 8192)) 512"
	i=$((i + 1))
done | pmem-io lines "$LIST"
sum=$(gzip -c 2>/dev/null <"$LIST" | tail -c 8 | od -An -tx4 | awk '{ print $1 }')
check_faults "read" "ok $sum|$ERRORS" "read=$LIST"
echo "drop 0 16777216" >"$LIST"

# Poison is there after any failure: it has to be listed unless the command that makes it failed.
poison=/sys/kernel/debug/rust_pmem/$NAMESPACE
unreadable='Input/output error \(os error 5\)'
check_faults "poison" \
	"(ok; 65536 4096 injected|$ERRORS; 65536 4096 [a-z-]+); 128 8; $unreadable|$ERRORS; ; ; ok [0-9a-f]+" \
	"write=$poison=poison 65536 4096" --before "write=$LIST=drop 0 1048576" "$@" --then "-pread=/dev/$DISK=64K=4K"
echo "drop 0 1048576" >"$LIST"
platform=/sys/module/pmem_provider/parameters/bad
# Without memory, the work item reads the badrange list again.
listed="run=i=0; until grep -q . $LIST || [ \$i = 10 ]; do i=\$((i + 1)); sleep 0.1; done; cat $LIST $BADBLOCKS"
check_faults "a report of the platform" "ok; ok 65536 4096 log\+128 8|$ERRORS; ok( 65536 4096 log\+128 8)?" \
	"write=$platform=64K+4K" --before "write=$LIST=drop 0 1048576" --then "$listed"
# The driver takes it at the next access.
check_faults "a write to what a user has put into badblocks" "ok 4096; ; |$ERRORS; (65536 4096 user)?; 128 8" \
	"pwrite=/dev/$DISK=64K=4K" --before "write=$LIST=drop 0 1048576" --before "write=$BADBLOCKS=128 8" "$@"
echo "drop 0 1048576" >"$LIST"
is_empty "all can be dropped" cat "$LIST" "$BADBLOCKS"

# The entry of the badrange list is split by the work item, or at unbind.
echo "add 65536 12288" >"$LIST"
check "the region's badblocks has the errors" wait_for 60 grep -qx "128 24" "$ND/$NAMESPACE/../badblocks"
fail_allocations Y
echo "drop 69632 4096" >"$LIST"
echo "$NAMESPACE" >"$ND/$NAMESPACE/driver/unbind"
stop_faults
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
check "without memory at once: allocations failed" test "$FAULTS" -gt 0
is "without memory at once: the next bind finds the errors that remain" "$(cat "$LIST")" "65536 4096 log
73728 4096 log"
echo "drop 0 1048576" >"$LIST"

# pages_of_list: the numbers of the pages that are listed.
pages_of_list() {
	awk '{ for (page = $1; page < $1 + $2; page += 4096) print page / 4096 }' "$LIST" | sort -n | xargs
}

# try_one_fault NUMBER: five pages are added and two of them dropped, while an allocation of the driver fails, in any task. Prints
# what the next bind knows, if that is not what was added and not dropped. $behind counts faults of tries in which no write failed.
try_one_fault() {
	fail_allocations N "$1"
	wanted='' failed=
	if [ "$(errno_of sh -c "echo add 65536 20480 >$LIST")" = ok ]; then
		wanted="16 17 18 19 20"
	else
		failed=y
	fi
	for page in 17 19; do
		if [ "$(errno_of sh -c "echo drop $((page * 4096)) 4096 >$LIST")" = ok ]; then
			wanted=$(echo " $wanted " | sed "s/ $page / /" | xargs)
		else
			failed=y
		fi
	done
	# The work item, or an unbind, which does what it could not.
	[ $(($1 % 2)) = 0 ] || sleep 0.5
	echo "$NAMESPACE" >"$ND/$NAMESPACE/driver/unbind"
	stop_faults
	[ -n "$failed" ] || behind=$((behind + FAULTS))
	echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
	[ "$(pages_of_list)" = "$wanted" ] || echo "fault $1: \"$(pages_of_list)\", not \"$wanted\""
	echo "drop 0 1048576" >"$LIST"
}

behind=0 wrong=
for number in $(seq 16); do
	try_one_fault "$number" >/tmp/wrong
	wrong="$wrong$(cat /tmp/wrong)"
done
check "in any task: allocations failed although the writes succeeded" test "$behind" -ge 1
is_empty "in any task: the next bind knows what was added and not dropped" printf %s "$wrong"

# From the bus, as a machine check, and by the file that poisons memory.
load_mce_inject
fail_allocations N
provider bad 64K+4K
mce_inject $((MEMORY + 131072)) 12
result=$(errno_of sh -c "echo 'poison 196608 4096' >$poison")
wait_for 10 grep -q '^131072 ' "$LIST" || :
stop_faults
check "without memory: allocations failed" test "$FAULTS" -gt 0
echo "# poison: $result"
cut -d ' ' -f 1,2 "$LIST" | sed 's/^/# /'
is "without memory: the machine check is listed" "$(grep -c '^131072 4096' "$LIST")" 1
rebind "$NAMESPACE"
# Poison that is refused may be there, and is then listed.
listed=$(cut -d ' ' -f 1,2 "$LIST" | sort -n | paste -sd +)
[ "$result" = ok ] || listed="${listed%+196608 4096}+196608 4096"
is "without memory: the next bind knows all that was reported" "$listed" "65536 4096+131072 4096+196608 4096"

# has_failed: an allocation has failed.
has_failed() {
	[ "$(cat /sys/kernel/debug/failslab/times)" -lt $MANY_FAULTS ]
}

# The work item fails, so that only the driver has the machine check until the unbind. There, the first try fails: it writes the
# badrange list twice, and reads it in between. Without other errors, six failures suffice, and twelve are too many for both tries.
echo "drop 0 1048576" >"$LIST"
fail_allocations N
mce_inject $((MEMORY + 262144)) 12
check "without memory for the work item: an allocation fails" wait_for 10 has_failed
sleep 1
echo 9 >/sys/kernel/debug/failslab/times
echo "$NAMESPACE" >"$ND/$NAMESPACE/driver/unbind"
left=$(cat /sys/kernel/debug/failslab/times)
stop_faults
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
is "nor for the first try of the unbind: the next bind knows the machine check" "$left $(grep -c '^262144 4096' "$LIST")" "0 1"
provider_cleanup

# A write that fails may have repaired the page before that: then neither the disk nor the platform lists it.
provide size=$((32 << 20)) pages=1 dimm=0
make_fs ext4 "$DISK"
mount_dax "$DISK"
fallocate -l 64K $MNT/file
pmem-io fill $MNT/file --seed 1
sync
bad=$(disk_offset_of $MNT/file 8192)
zeros="ok $(head -c 4096 /dev/zero | checksum)"
check_faults "a write to a bad page of a file" \
	"(ok 4096|$ERRORS); ; ; $zeros|$ERRORS; $((bad / 512)) 8; ($bad\+4096)?; $unreadable" \
	"pwrite=$MNT/file=8K=4K" --before "run=pmem-io fill $MNT/file --offset 8K --length 4K --seed 1" \
	--before "write=$platform=$bad+4096" --show "/sys/block/$DISK/badblocks" --show $platform \
	--then "-pread=$MNT/file=8K=4K"
check "the pages before it" pmem-io verify $MNT/file --length 8K --seed 1
check "the pages behind it" pmem-io verify $MNT/file --offset 12K --length 52K --seed 1
umount $MNT
check "the file system" e2fsck -fn "/dev/$DISK"
