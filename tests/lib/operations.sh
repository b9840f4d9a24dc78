# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Random operations on four namespaces, all at once, from SEED:
#
#	# vm: provider 2
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/operations.sh"
#	operations_prepare ext4 1
#	operate 20
#	check_operations ""
#
# Each namespace has one user, which knows the expected contents:
#
#	raw      slots of a disk are written, read, and get errors, from the bus and as machine checks
#	files    files of ext4 or XFS with DAX are written and read by calls and through mappings, and get errors as well
#	modes    the namespace changes its mode, and is written and read in each; the memory of a disk gets errors
#	load     fio, which verifies what it has written; flushes are asynchronous
#
# Meanwhile namespaces and regions are unbound and bound, disks made read-only and scrubbed, lists read, and the driver
# unloaded. Between two calls of `operate`, `check_handover` hands all namespaces to the other driver and back.

# shellcheck source=tests/lib/provider.sh
. "$TESTS/lib/provider.sh"

OPERATIONS=/tmp/operations
SLOTS=48 SLOT=65536 FILES=12

# operations_prepare ext4|xfs COMMANDS: makes the namespaces, on a bus that has commands (1), or on one that has none (0), where an
# overwrite repairs. NAMESPACES lists them in the order above. XFS needs 64 MiB.
operations_prepare() {
	FILE_SYSTEM=$1
	modprobe ext4
	MODES="raw
fsdax -M mem
fsdax -M dev
sector"
	# PREEMPT_RT excludes it.
	if kernel_has device_dax; then
		modprobe -a device_dax dax_pmem
		MODES="$MODES
devdax -M mem"
	fi
	mkdir -p $OPERATIONS
	# For the position of a scrub.
	echo 0123456789abcdef0123456789abcdef >/etc/machine-id
	# What others have claimed, for leave_nothing.
	! driver_loaded || unload_driver
	grep -i 'namespace\|pmem[0-9]' /proc/iomem >$OPERATIONS/iomem || :
	region_size=$((32 << 20))
	[ "$FILE_SYSTEM" = ext4 ] || region_size=$((64 << 20))
	# Only the last one has asynchronous flushes, which sector mode does not have.
	provide size=$((4 * region_size)) nr_regions=4 pages=1 async=0x8 flush_async=1 commands="$2"
	# shellcheck disable=SC2046 # a list
	set -- $(namespaces pmem_provider)
	NAMESPACES=$*
	RAW=$(disk_of "$1") RAW_NAMESPACE=$1
	FILES_DISK=$(make_fsdax "$2") FILES_NAMESPACE=$2
	FILES_DATA=$(($(cat "/sys/block/$FILES_DISK/device/resource") - MEMORY))
	MODES_NAMESPACE=$3 MODES_DATA=$((2 * region_size))
	LOAD=$(disk_of "$4") LOAD_NAMESPACE=$4
	case $FILE_SYSTEM in
	ext4) make_fs ext4 "$FILES_DISK" ;;
	xfs) make_xfs_of_one_group "$FILES_DISK" ;;
	esac
	mount_dax "$FILES_DISK"
	mkdir "$MNT/unread"
	umount "$MNT"
	: >$OPERATIONS/raw
	: >$OPERATIONS/files
	for number in $(seq $SLOTS); do
		echo "seed_$number=0 bad_$number=0" >>$OPERATIONS/raw
	done
	for number in $(seq $FILES); do
		echo "seed_$number= bad_$number=0" >>$OPERATIONS/files
	done
}

# operate SECONDS: lets all of them work for this time, and until each operation has succeeded.
operate() {
	rm -f $OPERATIONS/stop $OPERATIONS/pause
	: >$OPERATIONS/wrong
	: >$OPERATIONS/done
	: >$OPERATIONS/ended
	echo $SLOWER >$OPERATIONS/slower
	workers=
	start_worker use_raw
	start_worker use_files
	start_worker change_modes
	start_worker use_load
	start_worker disturb "$RAW_NAMESPACE" "$RAW" 1
	start_worker disturb "$FILES_NAMESPACE" "$FILES_DISK" 4
	start_worker disturb "$LOAD_NAMESPACE" "$LOAD" 6
	start_worker read_lists
	start_worker scrub
	start_worker unload_and_load
	sleep "$1"
	# Rarely asked: on a debug kernel it takes a second of what the workers need. What has not succeeded by then may need more time
	# between two unbinds on this machine.
	operate_tries=0
	until all_done >/dev/null || [ $((operate_tries += 1)) -gt $((300 * SLOWER)) ]; do
		[ $((operate_tries % (100 * SLOWER))) -ne 0 ] || echo $((2 * $(cat $OPERATIONS/slower))) >$OPERATIONS/slower
		sleep 2
	done
	touch $OPERATIONS/stop
	worker="a worker"
	for worker_process in $workers; do
		worker_status=0
		wait "$worker_process" || worker_status=$?
		[ $worker_status -lt 126 ] || wrong "it ended with status $worker_status"
	done
	# One that sh ends for an error of its own has another status.
	[ "$(wc -l <$OPERATIONS/ended)" -eq "$(echo "$workers" | wc -w)" ] ||
		wrong "some have ended early, not only these: $(paste -sd ' ' $OPERATIONS/ended)"
	bind_all
}

# A kernel for debugging takes longer for each operation: SLOWER is the factor by which the time between two unbinds is longer.
case $(uname -r) in
*-debug*) SLOWER=6 ;;
*) SLOWER=1 ;;
esac

# all_done: prints the operations that were never done, and fails if there are any.
all_done() {
	! {
		echo "$MODES" | sed 's/^/change to /'
		printf '%s\n' "write to the raw disk" "read of the raw disk" "read of a bad slot" error mount "write to a file" "read of a file" \
			"write to a mapping" "error in a file" "read of a bad file" "repair of a file" "error in a mode" "machine check" repair \
			load unbind bind "unbind of a region" read-only lists scrub unload
	} | grep -vxF "$(sort -u $OPERATIONS/done)"
}

start_worker() {
	SEED=$((SEED + 1))
	worker=$1 random_state=$SEED
	(
		trap - EXIT
		set +e
		"$@"
		echo "$1" >>$OPERATIONS/ended
	) &
	workers="$workers $!"
}

# random N: sets `random` to a number below N.
random() {
	random_state=$(((random_state * 1103515245 + 12345) & 0x7fffffff))
	random=$(((random_state >> 12) % $1))
}

# random_pause: at most a second.
random_pause() {
	random 10
	sleep 0.$random
}

running() {
	[ ! -e $OPERATIONS/stop ]
}

# nap SECONDS: sleeps for so many times `slower` seconds, or until all are to stop.
nap() {
	# It may be about to be written.
	read -r nap_slower <$OPERATIONS/slower || nap_slower=$SLOWER
	nap_left=$(($1 * nap_slower))
	while running && [ $nap_left -gt 0 ]; do
		sleep 1
		nap_left=$((nap_left - 1))
	done
}

# running_unpaused: waits while the driver is being unloaded and loaded.
running_unpaused() {
	while running && [ -e $OPERATIONS/pause ]; do
		sleep 0.2
	done
	running
}

# wrong TEXT: reports an event that must not happen.
wrong() {
	echo "$worker: $*" >>$OPERATIONS/wrong
	note "$*"
}

# note TEXT: adds it to the kernel's log.
note() {
	echo "operations: $*" >/dev/kmsg
}

# count NAME: an operation that has succeeded.
count() {
	echo "$1" >>$OPERATIONS/done
}

bind_all() {
	load_driver
	for bound in $NAMESPACES; do
		bind_quietly nd_region "$(region_named "$bound")" || :
	done
	settle
	for bound in $NAMESPACES; do
		disk_of "$bound" >/dev/null || bind_quietly "$DRIVER" "$bound" || :
	done
	settle
}

# region_named NAMESPACE: the name of its region, also while it is not there.
region_named() {
	region_named=region${1#namespace}
	echo "${region_named%.*}"
}

# bind_quietly DRIVER DEVICE, unbind_quietly DRIVER DEVICE: others may have done so.
bind_quietly() {
	echo "$2" 2>/dev/null >"/sys/bus/nd/drivers/$1/bind"
} 2>/dev/null

unbind_quietly() {
	echo "$2" 2>/dev/null >"/sys/bus/nd/drivers/$1/unbind"
} 2>/dev/null

# undisturbed COMMAND…: with XFS, no unbind meets the end of an unmount, or a mount that fails: it would use what XFS has freed
# (patches/0013).
undisturbed() {
	case $FILE_SYSTEM in
	xfs)
		(
			flock 7
			"$@"
		) 7>$OPERATIONS/unmount
		;;
	*) "$@" ;;
	esac
}

# on_disk DISK COMMAND…: runs it while the disk is open. Fails with status 4 without the disk.
#
# The next disk gets the number of one that has gone. An open() of /dev/pmemN that began before opens that other disk: the
# kernel looks for a driver meanwhile (BLOCK_LEGACY_AUTOLOAD), which takes long. An open disk keeps its number.
on_disk() {
	on_disk=$1
	shift
	{ command exec 9<"/dev/$on_disk"; } 2>/dev/null || return 4
	{ read -r on_diskseq <"/sys/block/$on_disk/diskseq"; } 2>/dev/null || on_diskseq=none
	if [ "$(blockdev --getdiskseq /dev/fd/9 2>/dev/null)" = "$on_diskseq" ]; then
		status=0
		"$@" || status=$?
	else
		status=4
	fi
	exec 9<&-
	return $status
}

# retry EVENT COMMAND…: tries again while the disk is gone or read-only. `answer` says why the last try failed.
retry() {
	retry_event=$1
	shift
	tries=0 answer=
	until "$@"; do
		running || return
		sleep 0.2
		[ $((tries += 1)) -lt 200 ] || {
			wrong "$retry_event: ${answer:-the disk is gone}"
			return 1
		}
		answer=
	done
}

# machine_check DISK SECTOR ADDRESS: sets bad to 1 if the disk then lists it, and counts it, or else to 2: without the disk nobody
# notes it, and the memory of an emulator stays good. Only one at a time: a second one in the handler of the first ends the guest.
machine_check() {
	(
		flock 8
		host mce "$3" || wrong "no machine check is injected"
		sleep 0.1
	) 8>$OPERATIONS/machine-check
	[ "$bad" = 1 ] || bad=2
	wait_for 2 lists_some "$1" "$2" $(($2 + 1)) 2>/dev/null || return 0
	bad=1
	count "machine check"
}

# lists_some DISK FIRST END: a sector from the first one on, and before the end, is in the disk's bad blocks.
lists_some() {
	while read -r listed_first listed_count _; do
		[ "$listed_first" -ge "$3" ] || [ $((listed_first + listed_count)) -le "$2" ] || return 0
	done <"/sys/block/$1/badblocks"
	return 1
}

# use_raw: each slot has a seed, or 0 if it may have any contents, and is bad (1), good (0), or either (2).
use_raw() {
	. $OPERATIONS/raw
	newest=$(date +%s)
	while running; do
		random $SLOTS
		slot=$((random + 1)) offset=$((random * SLOT)) bad=
		eval "seed=\$seed_$slot bad=\$bad_$slot"
		random 8
		case $random in
		0 | 1 | 2) retry "slot $slot of the raw disk can't be written" write_slot ;;
		3) poison_slot ;;
		4) fail_slot ;;
		*) retry "slot $slot of the raw disk is good and can't be read" check_slot ;;
		esac
	done
	for slot in $(seq $SLOTS); do
		eval "echo seed_$slot=\$seed_$slot bad_$slot=\$bad_$slot"
	done >$OPERATIONS/raw
}

write_slot() {
	newest=$((newest + 1))
	status=0
	answer=$(on_disk "$RAW" pmem-io fill --direct --offset "$offset" --length $SLOT "/dev/$RAW" --seed $newest 2>&1) || status=$?
	case $status in
	0)
		[ "$bad" != 1 ] || count "repair"
		eval "seed_$slot=$newest bad_$slot=0"
		note "slot $slot is written"
		count "write to the raw disk"
		;;
	4) return 1 ;;
	*)
		! tap_broken $status pmem-io || wrong "pmem-io has status $status: $answer"
		eval "seed_$slot=0"
		[ "$bad" = 0 ] || eval "bad_$slot=2"
		return 1
		;;
	esac
}

poison_slot() {
	random 128
	if provider bad $((offset + random * 512))+512; then
		note "error at sector $((offset / 512 + random))"
		eval "bad_$slot=1"
		count "error"
	else
		wrong "no error is injected"
	fi
}

fail_slot() {
	random 16
	note "machine check at sector $((offset / 512 + random * 8))"
	machine_check "$RAW" $((offset / 512 + random * 8)) $((MEMORY + offset + random * 4096))
	eval "bad_$slot=$bad"
}

# check_slot: fails if the slot can't be read, and should.
check_slot() {
	status=0
	answer=$(on_disk "$RAW" pmem-io verify --direct --offset "$offset" --length $SLOT "/dev/$RAW" --seed "$seed" 2>&1) || status=$?
	case $status:$seed:$bad in
	1:*:0 | 4:*) return 1 ;;
	1:*) count "read of a bad slot" ;;
	[03]:*:1) wrong "slot $slot of the raw disk has an error and can be read, at sector $((offset / 512)); badblocks: $(tr '\n' ',' \
		<"/sys/block/$RAW/badblocks")" ;;
	3:0:*) ;;
	3:*) wrong "slot $slot of the raw disk has other contents: $answer" ;;
	0:*) count "read of the raw disk" ;;
	*) wrong "pmem-io has status $status: $answer" ;;
	esac
}

# use_files: each file has a seed, 0 if it may have any contents, or none if it does not exist; and is bad (1), good (0), or either (2).
use_files() {
	. $OPERATIONS/files
	newest=$(date +%s)
	mount_files
	while running; do
		random $FILES
		number=$((random + 1)) path=$MNT/file$((random + 1))
		eval "seed=\$seed_$number bad=\$bad_$number"
		random 8
		case $random in
		0 | 1) retry "$path can't be written" or_mount write_file ;;
		2) map_file || works_still || mount_files ;;
		3) fail_file || mount_files ;;
		*) [ -z "$seed" ] || retry "$path is good and can't be read" or_mount verify_file ;;
		esac
		[ ! -e $OPERATIONS/pause ] || mount_files
	done
	for number in $(seq $FILES); do
		eval "echo seed_$number=\$seed_$number bad_$number=\$bad_$number"
	done >$OPERATIONS/files
	undisturbed umount "$MNT" 2>/dev/null
}

# works_still: the file is bad, and the disk is not gone.
works_still() {
	[ "$bad" != 0 ] && ls "$MNT/unread" >/dev/null 2>&1
}

# or_mount COMMAND: if it fails, mounts the file system anew for the next try: the disk may be gone, or was read-only.
or_mount() {
	"$@" && return
	mount_files
	return 1
}

write_file() {
	newest=$((newest + 1))
	truncate -s 256K "$path" 2>/dev/null || return
	eval "seed_$number=\${seed_$number:+0}"
	[ "$bad" = 0 ] || eval "bad_$number=2"
	answer=$(pmem-io fill "$path" --seed $newest 2>&1) && sync "$path" "$MNT" 2>/dev/null || return
	[ "$bad" != 1 ] || count "repair of a file"
	eval "seed_$number=$newest bad_$number=0"
	note "$path is written"
	count "write to a file"
}

map_file() {
	[ "${seed:-0}" != 0 ] || return 0
	newest=$((newest + 1))
	eval "seed_$number=0"
	pmem-io map-write --durable fsync "$path" --seed $newest >/dev/null 2>&1 || return
	[ "$bad" != 1 ] || wrong "$path has an error and its mapping can be written"
	eval "seed_$number=$newest"
	count "write to a mapping"
}

# fail_file: gives an error to a page of a file, whose blocks stay where they are. Not of the first one, which the other driver writes by
# a mapping.
fail_file() {
	[ "${seed:-0}" != 0 ] && [ "$number" != 1 ] || return 0
	random 64
	sector=$(sector_of "$path" $((random * 4096)) 2>/dev/null) && [ "$sector" != 0 ] || return
	random 2
	if [ "$random" = 0 ]; then
		provider bad $((FILES_DATA + sector * 512))+512 || wrong "no error is injected"
		bad=1
	else
		machine_check "$FILES_DISK" "$sector" $((MEMORY + FILES_DATA + sector * 512))
	fi
	eval "bad_$number=$bad"
	note "error in $path, at sector $sector"
	count "error in a file"
	# It may be written before it is read by chance.
	random 2
	[ "$random" = 0 ] || verify_file
	return 0
}

# verify_file: fails if the file can't be read, and should.
verify_file() {
	status=0
	how=verify
	random 2
	[ "$random" = 0 ] || how=map-verify
	answer=$(pmem-io $how "$path" --seed "$seed" 2>&1) || status=$?
	case $seed:$answer in
	0:*) ;;
	*byte*) wrong "$path has other contents: $answer" ;;
	esac
	case $status:$bad:$answer in
	# An error, or SIGBUS for a page of a mapping.
	1:* | *" code "*) works_still && count "read of a bad file" ;;
	[03]:1:*) wrong "$path has an error and can be read" ;;
	[03]:*) count "read of a file" ;;
	*) wrong "pmem-io has status $status: $answer" ;;
	esac
}

# mount_files: after the disk is gone, mounts the file system again, and looks for all files.
mount_files() {
	undisturbed umount "$MNT" 2>/dev/null
	while [ -e $OPERATIONS/pause ]; do
		sleep 0.2
	done
	# Not by retry, which calls this.
	wait_for 60 mounted_or_stopped || {
		wrong "the file system can't be mounted: $(tail -n 1 $OPERATIONS/fsck)"
		return
	}
	count "mount"
	for mounted in $(seq $FILES); do
		eval "mounted_seed=\$seed_$mounted"
		[ -z "$mounted_seed" ] || [ -e "$MNT/file$mounted" ] || ! ls "$MNT/unread" >/dev/null 2>&1 || wrong "file$mounted is gone"
	done
}

mounted_or_stopped() {
	on_disk "$FILES_DISK" undisturbed check_and_mount || ! running
}

check_and_mount() {
	replay_journal && mount_dax "$FILES_DISK" 2>>$OPERATIONS/fsck
}

# replay_journal: the last unbind may have found the file system mounted.
replay_journal() {
	case $FILE_SYSTEM in
	ext4) e2fsck -p "/dev/$FILES_DISK" >$OPERATIONS/fsck 2>&1 || [ $? -le 1 ] ;;
	xfs) { mount "/dev/$FILES_DISK" "$MNT" && umount "$MNT"; } >$OPERATIONS/fsck 2>&1 ;;
	esac
}

# change_modes: the file `modes` has the seed of the disk that was made last, if it was written. Each mode comes once before any comes
# again.
change_modes() {
	modes_left=$MODES
	while running; do
		rm -f $OPERATIONS/modes
		: "${modes_left:=$MODES}"
		random "$(echo "$modes_left" | wc -l)"
		mode="-m $(echo "$modes_left" | sed -n "$((random + 1))p")"
		# shellcheck disable=SC2086 # a list
		ndctl create-namespace -f -e "$MODES_NAMESPACE" $mode >$OPERATIONS/mode 2>/dev/null || {
			random_pause
			continue
		}
		count "change to${mode#-m}"
		modes_left=$(echo "$modes_left" | grep -vxF "${mode#-m }")
		newest=$(date +%s)
		case $mode in
		*devdax*)
			device=/dev/$(jq -r .daxregion.devices[0].chardev $OPERATIONS/mode)
			pmem-io map-write --length 2M "$device" --seed "$newest" >/dev/null 2>&1 || continue
			answer=$(pmem-io map-verify --length 2M "$device" --seed "$newest" 2>&1) || :
			;;
		*)
			device=$(jq -r .blockdev $OPERATIONS/mode)
			retry "$mode: it can't be written and read" write_mode || continue
			[ ! -e $OPERATIONS/modes ] || fail_mode
			continue
			;;
		esac
		case $answer in
		*byte*) wrong "$mode: $answer" ;;
		esac
	done
}

# on_mode fill|verify: of the first 4 megabytes of the disk. In raw mode, that repairs all errors of fail_mode, also where struct pages
# will be: on a bus without commands, the driver does not bind to "fsdax -M dev" before.
on_mode() {
	on_disk "$device" pmem-io "$1" --direct --length 4M "/dev/$device" --seed "$newest" 2>&1
}

# fail_mode: gives an error to a page of the first 4 megabytes of the namespace, behind the info blocks. A write repairs it.
fail_mode() {
	random 1008
	page=$((random + 16))
	rm $OPERATIONS/modes
	provider bad $((MODES_DATA + page * 4096))+4096 || wrong "no error is injected"
	note "$mode: error at page $page"
	count "error in a mode"
	status=0
	answer=$(on_mode verify) || status=$?
	# Where the disk has the page: behind struct pages on the device; in sector mode nobody knows.
	case $mode in
	*dev) page=$((page - 512)) ;;
	*sector) page=-1 ;;
	esac
	case $status in
	0) [ $page -lt 0 ] || wrong "$mode: page $page has an error and can be read" ;;
	3) wrong "$mode: $answer" ;;
	esac
	retry "$mode: an error can't be repaired" write_mode || :
}

# write_mode: does nothing if the disk is gone, as at an unload.
write_mode() {
	status=0
	answer=$(on_mode fill) && answer=$(on_mode verify) || status=$?
	case $status in
	0) echo "$newest" >$OPERATIONS/modes ;;
	3) wrong "$mode: $answer" ;;
	4) ;;
	*) return 1 ;;
	esac
}

use_load() {
	while running_unpaused; do
		random 3
		case $random in
		0) set -- --ioengine=io_uring --iodepth=16 ;;
		1) set -- --ioengine=libaio --iodepth=8 --sync=1 ;;
		*) set -- --ioengine=io_uring --iodepth=8 --fixedbufs=1 --registerfiles=1 ;;
		esac
		# One that has time to succeed, or one that is likely under way at an unbind.
		random 2
		[ "$random" = 0 ] || set -- --size=16M "$@"
		on_disk "$LOAD" write_and_verify "$@" && count "load"
	done
}

# write_and_verify OPTIONS OF fio…: with other contents than before, each time. fio also verifies what it has not read because the
# disk is gone.
write_and_verify() {
	fio --name=load --filename="/dev/$LOAD" --allow_file_create=0 --direct=1 --rw=randwrite --bsrange=512-64k --size=2M --thinktime=2ms \
		--randseed="$random_state" --verify=crc32c --verify_backlog=32 --verify_fatal=1 "$@" >$OPERATIONS/load 2>&1 && return
	! blockdev --getdiskseq /dev/fd/9 >/dev/null 2>&1 || ! grep -q 'verify: \|verify failed' $OPERATIONS/load ||
		wrong "fio reads other data: $(grep -m 1 'verify: \|verify failed' $OPERATIONS/load)"
	return 1
}

# disturb NAMESPACE DISK SECONDS: unbinds and binds, and changes whether the disk is read-only, with pauses.
disturb() {
	region=$(region_named "$1")
	while running; do
		random 4
		case $random in
		0 | 1)
			device=$(device_of_disk "$2" 2>/dev/null)
			if [ -n "$device" ] && undisturbed unbind_quietly "$DRIVER" "$device"; then
				note "$device is unbound"
				count "unbind"
				random_pause
				bind_quietly "$DRIVER" "$device" && count "bind"
			fi
			;;
		2)
			undisturbed unbind_quietly nd_region "$region" && count "unbind of a region"
			note "$region is unbound"
			random_pause
			bind_quietly nd_region "$region"
			;;
		*)
			echo 1 >"$ND/$region/read_only" && count "read-only"
			random_pause
			echo 0 >"$ND/$region/read_only"
			;;
		esac
		nap "$3"
		random_pause
	done
}

read_lists() {
	while running; do
		# Some of these fail for devices without a driver.
		cat "$ND"/region*/badblocks "$ND"/*/mode "$ND"/*/size "$ND"/*/resource >/dev/null 2>&1
		find /sys/kernel/debug/rust_pmem -type f -exec cat {} + >/dev/null 2>&1
		cat /sys/block/pmem*/badblocks /sys/block/pmem*/device/errors/* >/dev/null 2>&1 && pmemctl list >/dev/null 2>&1 && count "lists"
		random_pause
	done
}

# scrub: reads the pages of a disk that are not listed. It may find an error that is listed meanwhile; one disk has none.
scrub() {
	while running_unpaused; do
		random 3
		case $random in
		0) scrubbed=$RAW ;;
		1) scrubbed=$FILES_DISK ;;
		*) scrubbed=$LOAD ;;
		esac
		pmemctl scrub --json --rate 64M --state-dir $OPERATIONS "$scrubbed" >$OPERATIONS/scrub 2>/dev/null
		[ "$(jq .complete $OPERATIONS/scrub)" != true ] || count "scrub"
		[ "$scrubbed" != "$LOAD" ] || [ "$(jq '.found == []' $OPERATIONS/scrub)" != false ] ||
			wrong "a scrub finds errors on $scrubbed: $(jq -c .found $OPERATIONS/scrub)"
		random_pause
	done
}

# unload_and_load: users of the file system and of fio's disk stop meanwhile; others find no disk.
unload_and_load() {
	unload_after=4
	while running; do
		nap $unload_after
		unload_after=8
		touch $OPERATIONS/pause
		if wait_for 6 unload_unused 2>/dev/null; then
			count "unload"
			random_pause
			load_driver || wrong "the driver can't be loaded"
		fi
		rm $OPERATIONS/pause
	done
}

# unload_unused: starts no process in vain.
unload_unused() {
	read -r users <"/sys/module/$DRIVER/refcnt" && [ "$users" = 0 ] && unload_driver
}

# check_handover PREFIX: 8 subtests. Nothing may use the namespaces.
#
# The other driver writes good slots only: nd_pmem crashes on a write to an unmapped page.
check_handover() {
	handover_listed=$(bad_sectors)
	check "$1handover: the driver is unloaded" wait_for 60 unload_driver
	DRIVER=$(other_driver)
	check "$1handover: the other driver is loaded" load_driver
	prints "$1handover: it knows the listed errors" "$handover_listed" bad_sectors
	is_empty "$1handover: contents are as they should be" check_contents
	check "$1handover: it writes" write_contents
	check "$1handover: it is unloaded" wait_for 60 unload_driver
	DRIVER=$(other_driver)
	load_driver
	prints "$1handover: the errors are listed again" "$handover_listed" bad_sectors
	is_empty "$1handover: what the other driver wrote is there" check_contents
}

# bad_sectors: those of the raw disk and of that with files, one per line.
bad_sectors() {
	for number in "$RAW" "$FILES_DISK"; do
		awk -v disk="$number" '{ for (i = 0; i < $2; i++) print disk, $1 + i }' "/sys/block/$number/badblocks"
	done
}

check_contents() {
	check_slots
	check_file_system || :
	check_files
	check_modes
}

# write_contents: some good slots, a file, and what the disk that changes its mode contains.
write_contents() {
	. $OPERATIONS/raw
	newest=$(date +%s) written=0
	for slot in $(seq $SLOTS); do
		eval "bad=\$bad_$slot"
		if [ "$bad" != 0 ] || [ $written -ge 8 ]; then
			continue
		fi
		written=$((written + 1))
		pmem-io fill --direct --offset $(((slot - 1) * SLOT)) --length $SLOT "/dev/$RAW" --seed "$newest" || return
		echo "seed_$slot=$newest" >>$OPERATIONS/raw
	done
	mount_dax "$FILES_DISK" || return
	fallocate -l 256K "$MNT/file1" && pmem-io map-write --durable fsync "$MNT/file1" --seed "$newest" >/dev/null || return
	umount "$MNT"
	echo "seed_1=$newest bad_1=0" >>$OPERATIONS/files
	[ ! -e $OPERATIONS/modes ] || {
		echo "$newest" >$OPERATIONS/modes
		pmem-io fill --direct --length 1M "/dev/$(disk_of "$MODES_NAMESPACE")" --seed "$newest"
	}
}

# list_without_disk: the namespaces that have no disk.
list_without_disk() {
	for number in $RAW_NAMESPACE $FILES_NAMESPACE $LOAD_NAMESPACE; do
		disk_of "$number" >/dev/null || echo "$number"
	done
}

# check_operations PREFIX: 10 subtests, whose names begin with the prefix.
check_operations() {
	is_empty "$1no wrong data, no forgotten error, nothing lost" sort -u $OPERATIONS/wrong
	check "$1each operation succeeded" all_done
	sort $OPERATIONS/done | uniq -c | sed 's/^/# /'
	is_empty "$1every namespace has its disk again" list_without_disk
	is_empty "$1raw: contents and errors are as they should be" check_slots
	check "$1raw: writes repair all errors" repair_slots
	check "$1files: the file system is whole" check_file_system
	is_empty "$1files: contents and errors are as they should be" check_files
	check "$1files: writes repair all errors" repair_files
	check "$1modes: a write repairs all errors" repair_mode
	check "$1the driver leaves no memory claimed" leave_nothing
}

check_slots() {
	worker=raw
	wrong_before=$(wc -l <$OPERATIONS/wrong)
	. $OPERATIONS/raw
	for slot in $(seq $SLOTS); do
		offset=$(((slot - 1) * SLOT))
		eval "seed=\$seed_$slot bad=\$bad_$slot"
		check_slot || echo "slot $slot: $answer"
		if lists_some "$RAW" $((offset / 512)) $(((offset + SLOT) / 512)); then
			[ "$bad" != 0 ] || echo "slot $slot is good and listed"
		else
			[ "$bad" != 1 ] || echo "slot $slot is bad and not listed"
		fi
	done
	tail -n +$((wrong_before + 1)) $OPERATIONS/wrong
}

repair_slots() {
	pmem-io fill --direct --length $((SLOTS * SLOT)) "/dev/$RAW" --seed 1 &&
		pmem-io verify --direct --length $((SLOTS * SLOT)) "/dev/$RAW" --seed 1 &&
		cmp "/sys/block/$RAW/badblocks" /dev/null || return
	for slot in $(seq $SLOTS); do
		echo "seed_$slot=1 bad_$slot=0"
	done >$OPERATIONS/raw
}

# check_file_system: prints what is wrong with it.
check_file_system() {
	if ! { replay_journal && fs_is_whole "$FILE_SYSTEM" "$FILES_DISK" >>$OPERATIONS/fsck 2>&1; }; then
		cat $OPERATIONS/fsck
		return 1
	fi
}

check_files() {
	worker=files
	wrong_before=$(wc -l <$OPERATIONS/wrong)
	mount_dax "$FILES_DISK"
	. $OPERATIONS/files
	for number in $(seq $FILES); do
		eval "seed=\$seed_$number bad=\$bad_$number"
		path=$MNT/file$number
		[ -z "$seed" ] || [ -e "$path" ] || echo "$path is gone"
		[ -z "$seed" ] || verify_file || echo "$path: $answer"
	done
	umount "$MNT"
	tail -n +$((wrong_before + 1)) $OPERATIONS/wrong
}

repair_files() {
	mount_dax "$FILES_DISK" || return
	repair_status=0
	for path in "$MNT"/file*; do
		{ truncate -s 256K "$path" && pmem-io fill "$path" --seed 1 && pmem-io map-verify "$path" --seed 1; } || repair_status=1
	done
	umount "$MNT"
	[ $repair_status = 0 ] && cmp "/sys/block/$FILES_DISK/badblocks" /dev/null || return
	sed -i 's/seed_\([0-9]*\)=.\+ bad.*/seed_\1=1 bad_\1=0/' $OPERATIONS/files
}

check_modes() {
	[ ! -e $OPERATIONS/modes ] ||
		pmem-io verify --direct --length 1M "/dev/$(disk_of "$MODES_NAMESPACE")" --seed "$(cat $OPERATIONS/modes)" 2>&1 || echo "not as written"
}

# repair_mode: as a raw disk.
repair_mode() {
	ndctl create-namespace -f -e "$MODES_NAMESPACE" -m raw >$OPERATIONS/mode || return
	device=$(jq -r .blockdev $OPERATIONS/mode)
	pmem-io fill --direct --length 4M "/dev/$device" --seed 1 && pmem-io verify --direct --length 4M "/dev/$device" --seed 1 &&
		cmp "/sys/block/$device/badblocks" /dev/null
}

# leave_nothing: device DAX, which has another driver, is not in use.
leave_nothing() {
	unload_driver && ! grep -i 'namespace\|pmem[0-9]' /proc/iomem | grep -vxF -f $OPERATIONS/iomem
}

cleanup() {
	touch $OPERATIONS/stop
	umount "$MNT" 2>/dev/null
	provider_cleanup
}
