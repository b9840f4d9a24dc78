#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl errors never gives a wrong answer if the disk or the mount goes away while it runs, or without root.
# vm: labels
# timeout: 180
. "$(dirname "$0")/lib/test.sh"

WRAPPED=/tmp/wrapped

cleanup() {
	rm -rf "$WRAPPED"
	umount "$MNT" 2>/dev/null
	[ -e "/sys/bus/nd/drivers/$DRIVER/$device" ] || echo "$device" >"/sys/bus/nd/drivers/$DRIVER/bind"
	settle
	forget_errors "$disk"
	wipefs -aq "/dev/$disk"
	unload_driver
}

# wrap_program PROGRAM BEFORE AFTER: makes a PROGRAM that runs these commands before and after the real one.
wrap_program() {
	rm -rf "$WRAPPED"
	mkdir "$WRAPPED"
	cat >"$WRAPPED/$1" <<-END
		#!/bin/sh
		$2
		$(command -v "$1") "\$@"
		status=\$?
		$3
		exit \$status
	END
	chmod +x "$WRAPPED/$1"
}

# run_errors TARGET…: the exit status, and the last line of its errors.
run_errors() {
	errors_status=0
	PATH=$WRAPPED:$PATH pmemctl errors --json "$@" >/tmp/output 2>/tmp/errors || errors_status=$?
	echo "$errors_status $(tail -n 1 /tmp/errors)"
}

# as_nobody COMMAND…: runs the command as an unprivileged user.
as_nobody() {
	setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}

# bind_again: brings the disk back with its bad sector.
bind_again() {
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/bind"
	settle
	wait_for 60 [ -b "/dev/$disk" ]
	echo "$sector 1" >"/sys/block/$disk/badblocks"
}

need setpriv debugfs xfs_db lsblk filefrag jq
plan 11
load_driver
disk=$(labelled_disk -m fsdax -M mem -s 448M)
device=$(device_of_disk "$disk")
mkdir -p "$MNT"
unbind="echo $device >/sys/bus/nd/drivers/$DRIVER/unbind"
gone="4 pmemctl: $disk disappeared during the search"

for kind in 'ext4 debugfs' 'xfs xfs_db'; do
	make_fs "${kind% *}" "$disk"
	mount "/dev/$disk" "$MNT"
	dd if=/dev/urandom of="$MNT/file" bs=64K count=1 conv=fsync status=none
	sector=$(sector_of "$MNT/file")
	umount "$MNT"
	echo "$sector 1" >"/sys/block/$disk/badblocks"
	for program in lsblk "${kind#* }"; do
		unbinder=
		case $program in
		lsblk) wrap_program lsblk : "$unbind" && when="when it was listed" ;;
		*)
			# It has no privileges: it can only wait for the unbind.
			wrap_program "$program" "while grep -qw $disk /proc/partitions; do sleep 0.1; done" : && when="before $program looked"
			(wait_for 30 pgrep -f "$WRAPPED/$program" && echo "$device" >"/sys/bus/nd/drivers/$DRIVER/unbind") >/dev/null &
			unbinder=$!
			;;
		esac
		is "$kind: a disk that goes away $when" "$(run_errors "/dev/$disk")" "$gone"
		[ -z "$unbinder" ] || wait "$unbinder"
		bind_again
	done
	rm -rf "$WRAPPED"
	is "$kind: the owner is reported when the disk is back" "$(run_errors "/dev/$disk")$(jq -c '.errors[].owner.paths' /tmp/output)" '1 ["/file"]'
	forget_errors "$disk"
	echo "$unbind" | sh
	echo "$device" >"/sys/bus/nd/drivers/$DRIVER/bind"
	settle
done

# ---- XFS, mounted ----

echo "$sector 1" >"/sys/block/$disk/badblocks"
mount "/dev/$disk" "$MNT"
wrap_program lsblk "umount $MNT" :
is "a mount that goes away hides no error" "$(run_errors "/dev/$disk")$(jq -r '.errors[].reason' /tmp/output)" \
	"1 $disk was unmounted from $MNT; try again"
rm -rf "$WRAPPED"
chmod 755 /run/pmem
status=0
as_nobody pmemctl errors --json "/dev/$disk" >/tmp/output 2>/tmp/errors || status=$?
is "who is not root, and it is not mounted" "$status $(cat /tmp/errors)" "4 pmemctl: $disk: the errors of $disk are unknown: /dev/$disk: Permission denied (os error 13)"
mount "/dev/$disk" "$MNT"
chmod 755 "$MNT"
chmod 600 "$MNT/file"
status=0
as_nobody pmemctl errors --json "/dev/$disk" >/tmp/output 2>/tmp/errors || status=$?
is "mounted, and the file is closed to them" "$status $(jq -r '.errors[0] | "\(.owner.kind), \(.reason)"' /tmp/output)" \
	"1 unknown, or a file or directory that cannot be read (1 skipped)"
status=0
as_nobody pmemctl errors "$MNT/file" >/tmp/output 2>/tmp/errors || status=$?
is "a file that they may not open is not called good" "$status $(cat /tmp/output /tmp/errors)" \
	"4 pmemctl: $MNT/file: Permission denied (os error 13)"
chmod 644 "$MNT/file"
status=0
as_nobody pmemctl errors "$MNT/file" >/tmp/output 2>/tmp/errors || status=$?
is "one that they may" "$status $(wc -l </tmp/output)" "1 2"
