#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl list shows the mode, memmap place, driver and errors of each namespace, and the users of its disk.
#
# Users: partitions, volumes, file systems and how they are mounted.
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"

cleanup() {
	umount "$MNT" "$MNT 2" 2>/dev/null
	rmdir "$MNT 2"
	dmsetup remove --retry list 2>/dev/null
	wipefs -aq "/dev/$disk"p1 "/dev/$disk"
	forget_errors "$disk"
	unload_driver
}

# json_field EXPRESSION: a field of the namespace in the JSON output.
json_field() {
	pmemctl list --json "$disk" | jq -r ".namespaces[0] | $1"
}

# table_row DISK: the row of the table.
table_row() {
	pmemctl list | sed 's/  */ /g; s/ $//' | grep -F -- "$1 "
}

need sfdisk wipefs dmsetup lsblk
mapped=2M mapped_bytes=2097152
kernel_has transparent_hugepage || mapped=4K mapped_bytes=4096
plan 22
load_driver
disk=$(labelled_disk -m fsdax -M dev -s 448M)
device=$(device_of_disk "$disk")
printf 'start=16M,size=64M\nstart=80M\n' | sfdisk -q "/dev/$disk"
wait_for 60 test -b "/dev/${disk}p2"
dmsetup create list --table "0 $((304 * 2048)) linear /dev/${disk}p2 0"
dmsetup mknodes
volume=$(basename "$(readlink "/sys/dev/block/$(dmsetup info -c --noheadings -o major,minor --separator : list)")")
echo '860160 8' >"/sys/block/$disk/badblocks"
make_fs ext4 "${disk}p1"
make_fs xfs "$volume"
mkdir -p "$MNT 2"
mount_dax "${disk}p1"
mount "/dev/$volume" "$MNT 2"

is "what it is" "$(json_field '"\(.device) \(.mode) \(.page_map) \(.provider) \(.driver)"')" "$device fsdax device ACPI.NFIT $DRIVER"
is "how large" "$(json_field .size)" $((448 << 20))
is "what mappings are limited by" "$(json_field .alignment)" $mapped_bytes
is "what is bad of it" "$(json_field '.bad | tostring')" '[{"offset":440401920,"length":4096}]'
is "it can be written" "$(json_field .read_only)" false
is "its disk" "$(json_field '"\(.disk.name) \(.disk.type)"')" "$disk disk"
is "its partitions" "$(json_field '.disk.children[].name')" "${disk}p1
${disk}p2"
is "a file system" "$(json_field '.disk.children[0] | "\(.file_system) \(.mounts[0].directory) \(.mounts[0].dax)"')" "ext4 $MNT always"
is "a volume on the other" "$(json_field '.disk.children[1].children[0] | "\(.name) \(.kernel_name) \(.file_system)"')" \
	"list $volume xfs"
is "mounted where the name has a space, DAX for those files that want it" \
	"$(json_field '.disk.children[1].children[0].mounts[0] | "\(.directory), \(.dax)"')" "$MNT 2, per-file"

is "a table has the same" "$(table_row "$disk")" "$disk $device fsdax device 448M $mapped ACPI.NFIT $DRIVER - - - 4K in 1"
is "of a partition" "$(table_row "${disk}p1")" "└─${disk}p1 64M ext4 $MNT always"
is "of a volume" "$(table_row └─list)" "└─list 304M xfs $MNT 2 per file"

e820=$(e820_ns)
other=$(disk_of "$e820")
is "memory of e820, as it is" "$(table_row "$other")" "$other $e820 raw RAM 32M - e820 $DRIVER - - - none"
blockdev --setro "/dev/$other"
is "read-only is said" "$(pmemctl list --json "$e820" | jq '.namespaces[0].read_only')" true
blockdev --setrw "/dev/$other"
pmemctl list --json >/tmp/list.json
check_schema list /tmp/list.json
is "all there are, each once" "$(jq -r '.namespaces[].namespace' /tmp/list.json | sort | uniq -c | awk '$1 == 1' | wc -l)" \
	"$(ndctl list | jq length)"
check_fails "one that is not there is refused" pmemctl list namespace9.9
is "with its name" "$(pmemctl list namespace9.9 2>&1)" 'pmemctl: there is no namespace9.9; see "pmemctl list"'

umount "$MNT" "$MNT 2"
dmsetup remove --retry list
rebind "$device" 2>/dev/null || :
is "not mounted, nothing is" "$(json_field '[.. | .mounts? // empty | .[]] | length')" 0
unload_driver
is "without a driver" "$(pmemctl list --json "$e820" | jq -r '.namespaces[0] | "\(.driver) \(.disk)"')" "null null"
load_driver
seed=$(cat "$ND/$(labelled_region)/btt_seed")
status=0
pmemctl list "$seed" >/dev/null 2>/tmp/output || status=$?
is "a device without memory is an error" "$status $(grep -c "$seed: it has no memory" /tmp/output)" "1 1"
