#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Only root changes errors, labels or modes or reads the memory, also under lockdown and in a container; readers stall no I/O.
#
# The guest is this test's own, for lockdown ends with it: no other test has three processors of this machine. The scheduler warns when
# two of them are busy and the host gives them no time (7.2).
# expect-splat: at hrtimer_forward+ < dl_task_timer
# vm: files 3
# timeout: 900
. "$(dirname "$0")/lib/test.sh"

need pmem-io setpriv unshare python3 jq ndctl
modprobe nfit
load_driver
if [ "$DRIVER" = rust_pmem ]; then
	unload_driver
	insmod "$MODULE" inject=1
	settle
fi
namespace=$(e820_ns)
disk=$(disk_of "$namespace")
list=$ND/$namespace/errors/list
poison=/sys/kernel/debug/rust_pmem/$namespace

# rights FILE: its mode and owner.
rights() {
	stat -L -c '%a %U:%G' "$1"
}

# reason: of the last failure in standard input.
reason() {
	sed -n '/: /h; $!d; x; s/.*: //p'
}

# as_user COMMAND: by the shell, without any privilege; prints the reason for a failure.
as_user() {
	setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs sh -c "$1" 2>&1 | reason
}

# in_container COMMAND: as root of a user namespace, which an unprivileged user can make.
in_container() {
	setpriv --reuid=65534 --regid=65534 --clear-groups unshare --user --map-root-user --mount sh -c "$1" 2>&1 | reason
}

# as_root COMMAND
as_root() {
	sh -c "$1" 2>&1 | reason
}

case $DRIVER in
rust_pmem) plan 75 ;;
*) plan 29 ;;
esac
is "the disk" "$(rights "/dev/$disk" | cut -d' ' -f2 | cut -d: -f1) $(($(rights "/dev/$disk" | cut -d' ' -f1) % 10))" "root 0"
is "badblocks" "$(rights "/sys/block/$disk/badblocks")" "644 root:root"
is "dax/write_cache" "$(rights "/sys/block/$disk/dax/write_cache")" "644 root:root"
is "bind" "$(rights "/sys/bus/nd/drivers/$DRIVER/bind")" "200 root:root"
is_empty "only root writes to files of the driver, its devices and their bus" find "/sys/bus/nd/drivers/$DRIVER/" "/sys/module/$DRIVER/" \
	"/sys/block/$disk/" "$ND/$namespace/" "$ND/$namespace/../../" -type f -perm /022
is "unbind" "$(rights "/sys/bus/nd/drivers/$DRIVER/unbind")" "200 root:root"

# Files that an unprivileged user, or the root of a container, must not change.
for file in "/sys/block/$disk/badblocks" "/sys/block/$disk/dax/write_cache" "/sys/bus/nd/drivers/$DRIVER/bind" \
	"/sys/bus/nd/drivers/$DRIVER/unbind" "/dev/$disk"; do
	is "an unprivileged user: ${file##*/}" "$(as_user "echo 0 8 >$file")" "Permission denied"
	is "a container: ${file##*/}" "$(in_container "echo 0 8 >$file")" "Permission denied"
done
is "a container makes no node of the disk" "$(in_container "mknod /tmp/node b $(tr : ' ' <"/sys/block/$disk/dev")")" "Operation not permitted"
# By these, labels are changed, errors cleared, and memory is mapped.
for node in ndctl0 nmem0; do
	is "$node" "$(rights "/dev/$node")" "600 root:root"
	is "an unprivileged user: $node" "$(as_user ": <>/dev/$node")" "Permission denied"
	is "a container: $node" "$(in_container ": <>/dev/$node")" "Permission denied"
done
if kernel_has device_dax; then
	modprobe -a device_dax dax_pmem
	make_namespace -e "$namespace" -m devdax -M mem >/tmp/devdax
	node=$(jq -r .daxregion.devices[0].chardev /tmp/devdax)
	is "device DAX" "$(rights "/dev/$node")" "600 root:root"
	is "an unprivileged user: device DAX" "$(as_user ": <>/dev/$node")" "Permission denied"
	is "a container: device DAX" "$(in_container ": <>/dev/$node")" "Permission denied"
	is "a container makes no node of it" "$(in_container "mknod /tmp/node c $(tr : ' ' <"/sys/bus/dax/devices/$node/dev")")" "Operation not permitted"
else
	for row in "device DAX" "an unprivileged user: device DAX" "a container: device DAX" "a container makes no node of it"; do
		skip "$row" "this kernel has no device_dax"
	done
fi
make_namespace -e "$namespace" -m raw >/dev/null
is "the disk is there again" "$(disk_of "$namespace")" "$disk"
is "an unprivileged user cannot read the disk" "$(as_user "head -c 512 /dev/$disk")" "Permission denied"
[ "$DRIVER" = rust_pmem ] || exit 0

is "errors/list" "$(rights "$list")" "644 root:root"
is "errors/overwrite_heals" "$(rights "/sys/block/$disk/errors/overwrite_heals")" "644 root:root"
is "the file that poisons memory" "$(rights "$poison") in $(rights /sys/kernel/debug)" "200 root:root in 700 root:root"
heals=/sys/block/$disk/errors/overwrite_heals
is "an unprivileged user: errors/overwrite_heals" "$(as_user "echo 1 >$heals")" "Permission denied"
is "a container: errors/overwrite_heals" "$(in_container "echo 1 >$heals")" "Permission denied"
is "an unprivileged user: errors/list" "$(as_user "echo 'add 0 512' >$list")" "Permission denied"
is "a container: errors/list" "$(in_container "echo 'add 0 512' >$list")" "Permission denied"
is "an unprivileged user: poison" "$(as_user "echo 'poison 0 4096' >$poison")" "Permission denied"
is "a container: poison" "$(in_container "echo 'poison 0 4096' >$poison")" "Permission denied"
check "where /sys is writable, root without capabilities writes to the list" setpriv --bounding-set=-all --inh-caps=-all \
	sh -c "echo 'add 0 512' >$list && echo 'drop 0 512' >$list"
check "a user reads the list" setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs cat "$list"
echo "add 4096 512" >"$list"
is "and sees what is there" "$(setpriv --reuid=65534 --regid=65534 --clear-groups cat "$list")" "4096 512 user"
echo "drop 4096 512" >"$list"

# beside WHAT COMMAND…: runs the command while another CPU does this without a pause: "reader of FILE", or "writer at OFFSET" of
# the disk.
beside() {
	rm -f /tmp/beside
	case $1 in
	reader*)
		taskset -c 1 setpriv --reuid=65534 --regid=65534 --clear-groups \
			sh -c ": >/tmp/beside; while :; do cat ${1##* } >/dev/null; done" &
		;;
	writer*)
		taskset -c 1 sh -c ": >/tmp/beside; exec pmem-io places /dev/$disk write --direct --offset ${1##* } --stride 4K --count 1 \
			--seconds 600" >/dev/null &
		;;
	esac
	neighbour=$!
	wait_for 60 test -e /tmp/beside || return
	shift
	"$@"
	# It must be there still.
	kill "$neighbour" || return
	wait "$neighbour" 2>/dev/null || :
}

# For each line of its input, makes such requests of 4 KiB to random places for a second. Prints how many, and the longest in ms. One
# process for all of them: to start one takes as long.
cat >/tmp/requests.py <<'END'
import mmap, os, random, sys, time

disk = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
for line in sys.stdin:
    call = {"read": os.preadv, "write": os.pwritev}[line.strip()]
    count = longest = 0
    now = time.monotonic()
    end = now + 1
    while now < end:
        place = (128 << 20) + random.randrange(8192) * 4096
        before = time.monotonic()
        if call(disk, [page], place) != 4096:
            sys.exit("a short request")
        now = time.monotonic()
        longest = max(longest, now - before)
        count += 1
    print(count, int(longest * 1000), flush=True)
END

# requests read|write: by that process.
requests() {
	echo "$1" >&5
	read -r answer <&6
	echo "$answer"
}

reads() {
	requests read
}

writes() {
	requests write
}

# repairs: how many errors are added and repaired by a write in two seconds, and 0: the longest is not measured.
repairs() {
	count=0 end=$(($(date +%s%N) + 2000000000))
	while [ "$(date +%s%N)" -lt $end ]; do
		echo "add $((200 << 20)) 4096" >"$list"
		dd if=/dev/zero of="/dev/$disk" bs=4096 count=1 oflag=direct seek=$((200 << 8)) conv=notrunc status=none
		count=$((count + 1))
	done
	echo "$count 0"
}

# changes: how many errors are added and dropped in two seconds, and 0: the longest is not measured.
changes() {
	count=0 end=$(($(date +%s%N) + 2000000000))
	while [ "$(date +%s%N)" -lt $end ]; do
		echo "add $((200 << 20)) 4096" >"$list"
		echo "drop $((200 << 20)) 4096" >"$list"
		count=$((count + 1))
	done
	echo "$count 0"
}
awk 'BEGIN { for (i = 0; i < 100000; i++) printf "add %d 512\n", i * 1024 }' | pmem-io lines "$list"
is "a list of 100,000 lines" "$(wc -l <"$list")" 100000
# An emulator's memory is slow at first.
dd if=/dev/zero of="/dev/$disk" bs=1M seek=128 count=32 oflag=direct conv=notrunc status=none
# This shell and all that it starts, but the reader.
taskset -cp 0 $$ >/dev/null
mkfifo /tmp/requests.in /tmp/requests.out
python3 /tmp/requests.py "/dev/$disk" </tmp/requests.in >/tmp/requests.out &
exec 5>/tmp/requests.in 6</tmp/requests.out

# keeps_up reads|writes|repairs|changes NEIGHBOUR OTHER: beside the first one, a quarter of what is done beside the other one is
# done, and no request takes much longer. A host that is busy for a while delays one of both as well, so once in five tries is enough.
keeps_up() {
	for _ in 1 2 3 4 5; do
		alone=$(beside "$3" "$1") && crowded=$(beside "$2" "$1") || return
		echo "# $1, longest in ms: beside the $3 $alone; beside the $2 $crowded" >>/tmp/figures
		if [ "${crowded% *}" -gt $((${alone% *} / 4)) ] && [ "${crowded#* }" -le $((4 * ${alone#* } + 200)) ]; then
			return 0
		fi
	done
	return 1
}

for what in reads writes repairs; do
	for file in device/errors/list badblocks; do
		check "a reader of ${file#device/} stalls no $what" keeps_up $what "reader of /sys/block/$disk/$file" "reader of /proc/version"
	done
done
# By their own file on a DAX file system, users can do that.
heals_before=$(cat "$heals")
echo 0 >"$heals"
echo "add $((120 << 20)) 4096" >"$list"
for what in reads writes changes; do
	check "a writer of a page that stays bad stalls no $what" keeps_up $what "writer at 120M" "writer at 121M"
done
is "the page has stayed bad" "$(grep -c "^$((120 << 20)) " "$list")" 1
echo "drop $((120 << 20)) 4096" >"$list"
echo "$heals_before" >"$heals"
exec 5>&- 6<&-
cat /tmp/figures
is "what was repaired has left the list" "$(wc -l <"$list")" 100000
echo "drop 0 $((352 << 20))" >"$list"

# One page for each level.
echo "poison 8192 8192" >"$poison"
page=8192
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null || :
for level in integrity confidentiality; do
	check "lockdown: $level" sh -c "echo $level >/sys/kernel/security/lockdown"
	is "$level: nobody poisons memory" "$(as_root "echo 'poison 0 4096' >$poison")" "Operation not permitted"
	is "$level: errors are added" "$(echo 'add 4096 512' >"$list" && grep user "$list")" "4096 512 user"
	is "$level: and dropped" "$(echo 'drop 4096 512' >"$list" && grep -c user "$list")" 0
	check "$level: badblocks is written" sh -c "echo 8 1 >/sys/block/$disk/badblocks && grep -q '^4096 512 ' $list && echo 'drop 4096 512' >$list"
	check "$level: other files are written" sh -c "cat $heals >$heals && cat /sys/block/$disk/dax/write_cache >/sys/block/$disk/dax/write_cache"
	check "$level: it is bound again" rebind "$namespace"
	check_fails "$level: a poisoned page can't be read" pmem-io pread --direct "/dev/$disk" --offset $page --length 4096
	check "$level: a write repairs it" pmem-io fill --direct "/dev/$disk" --offset $page --length 4096 --seed 1
	check "$level: it has the new contents" pmem-io verify --direct "/dev/$disk" --offset $page --length 4096 --seed 1
	page=$((page + 4096))
	prints "$level: it has left the list" "$([ $page = 16384 ] || echo "$page 4096")" cut -d ' ' -f 1,2 "$list"
done
