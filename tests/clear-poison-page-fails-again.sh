#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A page that fails again and again during repair fails only those writes, and can be repaired afterwards.
# vm: three 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

SECONDS_=5

cleanup() {
	dmesg -n 7
	kill "${follower:-}" 2>/dev/null
	grep -E 'BUG:|WARNING:|INFO: |suspicious RCU|stall' /tmp/kernel 2>/dev/null | while read -r report; do
		echo "$report" >/dev/kmsg
	done
	echo 0 >/proc/sys/kernel/panic_on_warn
	umount $MNT 2>/dev/null
	forget_errors "${disk:-}"
	unload_driver
}

# result_kinds FILE: the kinds of results, without numbers. For a DAX file, fs/dax.c turns a short write of the device
# into EFAULT.
result_kinds() {
	sed 's/: [0-9].*//; s/^written, then //; s/Input\/output error/EIO/; s/Bad address/EIO/; s/^[0-9]* bytes/EIO/' "$1" | sort -u | xargs
}

# test_failing NAME COMMAND…: runs the command while the page fails again and again: 3 subtests.
test_failing() {
	failing_name=$1
	shift
	dmesg -C
	echo "poison $at 4096" >/tmp/poison
	pmem-io lines "$POISON/$namespace" --seconds $SECONDS_ </tmp/poison >/tmp/refused &
	poisoner=$!
	"$@" >/tmp/answers 2>&1 || :
	wait $poisoner
	check "$failing_name: the page fails meanwhile" sh -c "dmesg | grep -q 'Memory failure: '"
	sed 's/^/# /' /tmp/answers
	case $(result_kinds /tmp/answers) in
	ok | EIO | "EIO ok") ok "$failing_name: it succeeds or is an I/O error" ;;
	*) is "$failing_name: it succeeds or is an I/O error" "$(result_kinds /tmp/answers)" "EIO ok" ;;
	esac
	is "$failing_name: repaired afterwards" "$(places "$disk" rewrite --seed 7 --offset "$at" --stride 0 --count 1)" "ok: 1"
}

# is_followed: what the kernel says arrives in the file.
is_followed() {
	echo "is it followed?" >/dev/kmsg
	grep -q "is it followed?" /tmp/kernel
}

# zero_page: zeroes the page through the block device until the time is over.
zero_page() {
	zero_end=$(($(date +%s) + SECONDS_))
	while [ "$(date +%s)" -lt $zero_end ]; do
		if fallocate -z -o "$at" -l 4096 "/dev/$disk" 2>/tmp/zeroes.error; then
			echo ok
		else
			sed 's/.*: //' /tmp/zeroes.error
		fi
	done | sort | uniq -c | awk '{ n = $1; $1 = ""; sub(/^ /, ""); print $0 ": " n }'
}

[ "$DRIVER" = rust_pmem ] || skip_all "C can't inject"
need pmem-io
plan 11
load_with_inject
namespace=$(e820_ns)
disk=$(raw_disk "$namespace")
list=$(errors_list_of "$namespace")
make_fs ext4 "$disk"
mount_dax "$disk"
fallocate -l 1M $MNT/file
pmem-io fill $MNT/file
at=$(($(pmem-io phys $MNT/file --offset 400K) - $(cat "$ND/$namespace/resource")))
# Each failure prints three lines on the console. A report that it then does not show ends the guest, or is repeated at the end:
# not all kinds end it.
echo 1 >/proc/sys/kernel/panic_on_warn
dmesg -n 3
dmesg -W -t >/tmp/kernel &
follower=$!
wait_for 60 is_followed
test_failing "block write" places "$disk" write --offset "$at" --stride 0 --count 100 --seconds $SECONDS_
test_failing "write of a DAX file" pmem-io places $MNT/file write --offset 400K --stride 0 --count 100 --seconds $SECONDS_
test_failing "zeroing" zero_page
check "the file can be written" pmem-io fill $MNT/file
is_empty "nothing is listed" cat "$list" "/sys/block/$disk/badblocks"
