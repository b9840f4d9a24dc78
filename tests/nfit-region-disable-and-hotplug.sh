#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Disabling an NVDIMM region or its bus under I/O or a mounted file system is survived, and the data comes back.
#
# Also adds an NVDIMM to the running machine. The work item of an ACPI notification takes a lock, acpi_notify_lock, under which the
# NFIT's driver takes another one, with which it waits for such work items when a DIMM goes away: lockdep reports that, with any
# driver.
# compare
# expect-splat: possible circular locking dependency detected < acpi_nfit_notify
# vm: labels 2
# timeout: 240
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/busy.sh"

cleanup() {
	umount $MNT 2>/dev/null
}

need fio
plan 21
load_driver
disk=$(labelled_disk -m fsdax -s 96M)
namespace=$(jq -r .dev /tmp/labelled_disk.json)
region=$(labelled_region)
pmem-io fill --length 2M "/dev/$disk" --seed 1
start_fio "/dev/$disk" --allow_file_create=0 --filename="/dev/$disk" --direct=1 --offset=8M --size=16M --ioengine=libaio --iodepth=8 --numjobs=2 --time_based --runtime=120
record_result "ndctl, of a disk in use" sh -c "ndctl disable-region $region 2>&1 | sed 's/region[0-9]*/regionN/'"
record_result "the bus's own switch, after that" sh -c "echo $region >/sys/bus/nd/drivers/nd_region/unbind"
check_fio_fails "raw"
check_fails "raw: no disk" test -e "/dev/$disk"
is "raw: nothing in iomem" "$(grep -c "$namespace" /proc/iomem)" 0
check "raw: enabled" ndctl enable-region "$region"
settle
disk=$(disk_of "$namespace")
check "raw: what was synced is there" pmem-io verify --length 2M "/dev/$disk" --seed 1

make_fs ext4 "$disk"
mount_dax "$disk"
truncate -s 2M $MNT/file
pmem-io fill $MNT/file --seed 2
sync
start_fio $MNT/ --directory=$MNT --size=8M --ioengine=psync --fsync=16 --time_based --runtime=120
record_result "ext4: ndctl, of a mounted disk" sh -c "ndctl disable-region $region 2>&1 | sed 's/region[0-9]*/regionN/g'"
record_result "ext4: the bus's own switch" sh -c "echo $region >/sys/bus/nd/drivers/nd_region/unbind"
check_fio_fails "ext4"
check "ext4: umount" umount $MNT
check "ext4: enabled" ndctl enable-region "$region"
settle
disk=$(disk_of "$namespace")
check "ext4: repaired by e2fsck" sh -c "e2fsck -p /dev/$disk >/dev/null || [ \$? -le 1 ]"
check "ext4: mounted again" mount_dax "$disk"
check "ext4: what was synced is there" pmem-io verify $MNT/file --seed 2
umount $MNT

# All memory of ACPI.
before=$(find /sys/block -name 'pmem*' | sort)
record_result "the provider's module, with namespaces bound" rmmod nfit
provider=$(find /sys/bus/*/drivers/*/ -maxdepth 1 -name 'ACPI0012*')
check "the provider is unbound" sh -c "echo ${provider##*/} >${provider%/*}/unbind"
record "disks that are left" "$(find /sys/block -name 'pmem*' | wc -l)"
check "it is bound" sh -c "echo ${provider##*/} >${provider%/*}/bind"
check "the same disks" wait_for 60 sh -c "[ \"\$(find /sys/block -name 'pmem*' | sort)\" = '$before' ]"
settle
host add nvdimm size=32M >/dev/null
check "an NVDIMM that is added has a disk" wait_for 60 sh -c "[ \$(find /sys/block -name 'pmem*' | wc -l) -gt $(printf '%s\n' "$before" | wc -l) ]"
