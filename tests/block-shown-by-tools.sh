#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# ndctl, lsblk, blkid, modinfo, /proc and the kernel log show the disk and the driver as recorded.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

# add_log_rows NAME: the kernel messages since the last call, without those of programs and other devices.
add_log_rows() {
	dmesg -t | grep 'pmem\|namespace\|pfn\|btt' | grep -v '^rust_pmem-vm:\|loading out-of-tree\|taint' | mask_numbers | sort | uniq |
		sed "s/.*/$1: &/; s/: /: the log: /" | awk '{ print $0 "\tsaid" }' >>$ROWS
	dmesg -C
}

# add_disk_rows NAME DISK
add_disk_rows() {
	lsblk -bJO "/dev/$2" | jq -r '.blockdevices[0] | to_entries[] | select(.key != "disk-seq" and .key != "maj:min" and .key != "min") |
		"lsblk " + .key + ": " + (.value | tostring)' | mask_numbers >/tmp/lsblk
	add_rows "$1" cat /tmp/lsblk
	add_result_row "$1: blkid" sh -c "blkid -p /dev/$2 | tr -s ' ' | sed 's/^[^:]*: //; s/\bUUID=[^ ]*/UUID=…/'"
	add_row "$1: /proc/partitions" "$(awk -v disk="$2" '$4 == disk { print $1, $3 }' /proc/partitions)"
	add_row "$1: the node" "$(stat -c '%F %Hr %A %U %G' "/dev/$2")"
}

# Ranges and their names: the numbers and the order of regions vary, the addresses do not.
add_iomem_row() {
	add_row "$1: /proc/iomem" "$(grep -i 'namespace\|persistent\|pmem' /proc/iomem | mask_numbers | tr -s ' ' | paste -sd ,)"
}

add_ndctl_rows() {
	ndctl list -NDRBM -v | jq -c '[.. | objects | select(has("dev") or has("provider"))] |
		sort_by(.provider // "", .size // 0, .mode // "", .dev // "")[] |
		del(.uuid, .raw_uuid, .iset_id, .numa_node, .regions, .namespaces, .dimms, .mappings, .id, .handle, .phys_id)' |
		sed 's/"uuid":"[^"]*"/"uuid":"UUID"/g' | mask_numbers | sort | uniq -c | awk -v name="$1" '
		{ sub(/^ +/, ""); printf "%s: ndctl list, %d\t%s\n", name, ++n, $0 }' >>$ROWS
}

load_providers
dmesg -C
load_driver
add_log_rows "loaded"
add_result_row "its name" sh -c "ls /sys/bus/nd/drivers | grep pmem"
for field in alias license depends softdep intree parm description author; do
	case $DRIVER in
	rust_pmem) file=$MODULE ;;
	*) file=$DRIVER ;;
	esac
	add_result_row "modinfo: $field" sh -c "modinfo -F $field $file | sort | tr '\n' ' '"
done
add_row "parameters" "$(find "/sys/module/$DRIVER" -path "*/parameters/*" | wc -l)"
add_row "needed by the module" "$(lsmod | awk -v driver="$DRIVER" '$1 == "libnvdimm" || $1 == "nd_btt" { print $1, $4 ~ driver }' | sort | paste -sd ,)"

add_disk_rows "raw" "$(plain_disk)"
add_disk_rows "raw, e820" "$(e820_disk)"
dmesg -C
disk=$(labelled_disk -m fsdax -M mem -s 128M)
add_log_rows "fsdax made"
mkfs.ext4 -q -F -b 4096 -L parity -U 11111111-2222-3333-4444-555555555555 -E nodiscard "/dev/$disk"
add_disk_rows "fsdax" "$disk"
dmesg -C
sector=$(make_namespace -r "$(labelled_region)" -m sector -s 64M | jq -r .blockdev)
add_log_rows "sector made"
add_disk_rows "sector" "$sector"
add_iomem_row "bound"
add_ndctl_rows "bound"
add_result_row "DAX devices of character" sh -c 'ls /sys/class/dax /sys/bus/dax/devices 2>/dev/null | grep -v : | paste -sd " "'

mkdir -p $MNT
mount -o dax "/dev/$disk" $MNT
add_row "mounted with DAX" "$(awk -v mnt=$MNT '$2 == mnt { print $3, $4 }' /proc/mounts)"
umount $MNT
dmesg -C
unload_driver
add_log_rows "unloaded"
add_iomem_row "unbound"
add_ndctl_rows "unbound"
load_driver
report_rows
