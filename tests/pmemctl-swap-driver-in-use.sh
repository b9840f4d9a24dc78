#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl swap-driver does nothing while the disk has a holder, and names each one; a free disk is moved.
# kernel: device_dax
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"

NVMET=/sys/kernel/config/nvmet/subsystems

cleanup() {
	exec 5>&-
	umount $MNT /tmp/log 2>/dev/null
	swapoff "/dev/$disk" 2>/dev/null
	dmsetup remove life_dm 2>/dev/null
	mdadm -q --stop /dev/md/life 2>/dev/null
	losetup -D
	for namespace in "$NVMET"/life/namespaces/*; do
		[ -d "$namespace" ] && rmdir "$namespace"
	done
	rmdir "$NVMET/life" 2>/dev/null
	unload_both_drivers
}

# refuses NAME TEXT: the disk is not moved, and the output has this text.
refuses() {
	status=0
	pmemctl swap-driver --to "$other" "$disk" >/tmp/output 2>&1 || status=$?
	check "$1: refused" test "$status" -eq 1
	check "$1: named" grep -qF "$2" /tmp/output || cat /tmp/output
	[ "$(driver_of "$device")" = "$DRIVER" ] || not_ok "$1: it was moved all the same"
	sed 's/^/# /' /tmp/output
}

need_both_drivers
need pmemctl dmsetup mdadm losetup sfdisk xfs_io mkswap
plan 36
load_driver
disk=$(labelled_disk -m fsdax -s 384M)
device=$(device_of_disk "$disk")
e820=$(e820_disk)
load_both_drivers
other=$(other_driver)

make_fs ext4 "$disk"
mount_dax "$disk"
refuses "a mount" "$disk is mounted at $MNT (ext4)"
# Only in another mount namespace.
unshare -m sleep 600 &
sleeper=$!
wait_for 60 grep -qx sleep /proc/$sleeper/comm
umount $MNT
refuses "a mount that only another process sees" "$disk is mounted at $MNT (ext4), as process $sleeper (sleep) sees it"
kill "$sleeper"
wait "$sleeper" || :

mkswap "/dev/$disk" >/dev/null
swapon "/dev/$disk"
refuses "swap" "$disk is swap space"
swapoff "/dev/$disk"

dmsetup create life_dm --table "0 2048 linear /dev/$disk 0"
refuses "device mapper" "(device mapper: life_dm)"
dmsetup remove life_dm

modprobe -a raid1
mdadm -q --create /dev/md/life --run --level 1 --raid-devices 2 --metadata 1.2 "/dev/$disk" missing 2>/dev/null
refuses "md" "(md raid1)"
mdadm -q --stop /dev/md/life
mdadm -q --zero-superblock "/dev/$disk"

modprobe loop
loop=$(losetup -f --show "/dev/$disk")
refuses "a loop device" "$disk is part of ${loop#/dev/} (loop device)"
losetup -d "$loop"

modprobe nvmet
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
mkdir -p "$NVMET/life/namespaces/1"
printf %s "/dev/$disk" >"$NVMET/life/namespaces/1/device_path"
echo 1 >"$NVMET/life/namespaces/1/enable"
refuses "the NVMe target" "$disk is exported by the NVMe target: namespace 1 of subsystem life"
rmdir "$NVMET/life/namespaces/1" "$NVMET/life"

exec 5<"/dev/$disk"
refuses "an open file" "process $$ (sh) has $disk open"
exec 5>&-

# A file that is closed and still mapped. A command ends xfs_io and its mapping; pmem-io would have to be killed.
mkfifo /tmp/commands
xfs_io "/dev/$disk" </tmp/commands >/dev/null 2>&1 &
xfs_io=$!
exec 5>/tmp/commands
rm /tmp/commands
printf 'mmap -r 0 4k\nopen /dev/null\nclose\n' >&5
wait_for 60 grep -q "/dev/$disk" "/proc/$xfs_io/maps"
refuses "a mapping" "process $xfs_io (xfs_io) has $disk mapped"
printf 'quit\n' >&5
exec 5>&-
wait "$xfs_io"

printf 'label: gpt\nsize=320M\n' | sfdisk -q "/dev/$disk" 2>/dev/null
wait_for 60 test -e "/dev/${disk}p1"
make_fs xfs "${disk}p1"
mkdir -p $MNT
mount "/dev/${disk}p1" $MNT
refuses "a mounted partition" "${disk}p1 is mounted at $MNT (xfs)"
umount $MNT
dmsetup create life_dm --table "0 2048 linear /dev/${disk}p1 0"
refuses "a partition in use" "${disk}p1 is part of dm-"
dmsetup remove life_dm
wipefs -aq "/dev/${disk}p1" "/dev/$disk"
blockdev --rereadpt "/dev/$disk"

# The external journal of another file system.
make_fs ext4 "$e820" -O ^has_journal
mkfs.ext4 -q -F -b 4096 -O journal_dev "/dev/$disk" 16M
tune2fs -J device="/dev/$disk" "/dev/$e820" >/dev/null
mkdir -p /tmp/log
mount "/dev/$e820" /tmp/log
refuses "a journal" "$disk is claimed by something that can't be seen from here"
umount /tmp/log

# As an open() sees it that began before the disk was removed, and before another one got its number.
number=$(cat "/sys/block/$e820/dev")
mv "/dev/$disk" /dev/node
mknod "/dev/$disk" b "${number%:*}" "${number#*:}"
refuses "a node of another disk" "it can't be opened: No such device"
mv /dev/node "/dev/$disk"

is "several holders are several lines" "$(
	exec 5<"/dev/$disk"
	mkswap "/dev/$disk" >/dev/null
	swapon "/dev/$disk"
	pmemctl swap-driver --to "$other" "$disk" --json >/tmp/swap.json || :
	jq -r '.reports[0].holders[].kind' /tmp/swap.json | sort -u | tr '\n' ' '
	swapoff "/dev/$disk"
)" "process swap "
check_schema swap-driver /tmp/swap.json
is "its list of holders is empty" "$(pmemctl swap-driver --to "$other" "$disk" --dry-run --json | jq -c '.reports[0].holders')" null

modprobe device_dax
ndctl create-namespace -r "$(labelled_region)" -m devdax -s 64M >/tmp/devdax.json
dax=$(jq -r '.daxregion.devices[0].chardev' /tmp/devdax.json)
exec 5<"/dev/$dax"
status=0
pmemctl swap-driver --to "$other" "/dev/$dax" >/tmp/output 2>&1 || status=$?
exec 5>&-
is "open device DAX" "$status $(sed -n 's/^pmemctl: .* has /has /p' /tmp/output)" "1 has $dax open"
check "it is not for these drivers" grep -q "device DAX, dax_pmem's: there is nothing to move" /tmp/output

mount -t tmpfs "/dev/$disk" /tmp/log
check "a tmpfs with this source is no holder" pmemctl swap-driver --to "$other" "$disk" --dry-run
umount /tmp/log

check "free, it is moved" pmemctl swap-driver --to "$other" "$disk" "$e820"
is "so it is" "$(driver_of "$device")" "$other"
DRIVER=$(other_driver)
is "of two, the free one is moved" "$(
	exec 5<"/dev/$e820"
	pmemctl swap-driver --to "$(other_driver)" "$disk" "$e820" --json | jq -r '.reports[].result' | tr '\n' ' '
)" "moved refused "
DRIVER=$(other_driver)
is "back" "$(driver_of "$device")" "$DRIVER"
