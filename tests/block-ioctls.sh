#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Ioctls on a disk, a partition and a disk in sector mode return the recorded results.
#
# Also with invalid pointers, and with a descriptor that is open for reading only.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

query_ioctls='BLKROGET BLKGETSIZE BLKGETSIZE64 BLKSSZGET BLKPBSZGET BLKIOMIN BLKIOOPT BLKALIGNOFF BLKROTATIONAL BLKSECTGET BLKBSZGET BLKRAGET BLKFRAGET
BLKDISCARDZEROES BLKREPORTZONE BLKGETZONESZ BLKGETNRZONES HDIO_GETGEO HDIO_GET_IDENTITY HDIO_DRIVE_CMD CDROM_GET_CAPABILITY
SCSI_IOCTL_GET_IDLUN SCSI_IOCTL_SEND_COMMAND SG_GET_VERSION_NUM SG_IO NVME_IOCTL_ID IOC_OPAL_GET_STATUS LOOP_GET_STATUS64 unknown'
set_ioctls='BLKFLSBUF BLKRASET=512 BLKRAGET BLKRASET=18446744073709551615 BLKRASET=256 BLKFRASET=16 BLKFRAGET BLKBSZSET=512 BLKBSZGET BLKBSZSET=0 BLKBSZSET=100
BLKBSZSET=4096 BLKBSZSET=8192 BLKBSZSET=1073741824 BLKROSET=1 BLKROGET BLKROSET=0 BLKROGET BLKRRPART BLKDISCARD=0,4096 BLKSECDISCARD=0,4096
BLKDISCARD=0,0 BLKDISCARD=1,512 BLKZEROOUT=0,4096 BLKZEROOUT=0,512 BLKZEROOUT=512,512 BLKZEROOUT=1,512 BLKZEROOUT=0,1 BLKZEROOUT=0,0
BLKZEROOUT=0,18446744073709551615 BLKZEROOUT=4096,18446744073709551104 BLKZEROOUT=9223372036854775808,512 BLKRESETZONE=0,8 BLKOPENZONE=0,8
BLKPG=0,0,0 BLKPG=1,0,0 BLKPG=1,152,8 BLKPG=2,152,8 BLKPG=3,152,8 BLKPG=99,152,8 BLKTRACESETUP BLKTRACESTART BLKTRACESTOP BLKTRACETEARDOWN
IOC_PR_REGISTER=0,1,0 IOC_PR_RESERVE=1,1 IOC_PR_CLEAR=1,0 CDROMEJECT CDROM_MEDIA_CHANGED=0'
pointer_ioctls='BLKROSET BLKROGET BLKGETSIZE BLKGETSIZE64 BLKRAGET BLKFRAGET BLKSECTGET BLKSSZGET BLKPBSZGET BLKIOMIN BLKIOOPT BLKALIGNOFF BLKROTATIONAL
BLKPG BLKBSZGET BLKBSZSET BLKTRACESETUP BLKDISCARD BLKSECDISCARD BLKZEROOUT BLKREPORTZONE BLKRESETZONE BLKGETZONESZ HDIO_GETGEO SG_IO
IOC_PR_REGISTER IOC_PR_RESERVE'

# test_device NAME DISK
test_device() {
	# shellcheck disable=SC2086 # lists
	{
		add_rows "$1" pmem-io ioctl "/dev/$2" $query_ioctls
		pmem-io ioctl "/dev/$2" $set_ioctls >/tmp/answers
		awk '{ print ++n ", " $0 }' /tmp/answers >/tmp/numbered
		add_rows "$1" cat /tmp/numbered
		add_rows "$1, nothing there" pmem-io ioctl --bad-pointer "/dev/$2" $pointer_ioctls
		add_rows "$1, read-only" pmem-io ioctl --read-only "/dev/$2" BLKZEROOUT=0,4096 BLKDISCARD=0,4096 BLKFLSBUF BLKBSZSET=4096 BLKROSET=0 \
			BLKRRPART BLKRASET=256
	}
}

load_driver
modprobe blktrace 2>/dev/null || :
disk=$(plain_disk)
test_device "raw" "$disk"
add_result_row "not of root" setpriv --reuid 65534 --clear-groups --bounding-set -all sh -c "exec pmem-io ioctl /dev/$disk BLKGETSIZE 2>&1 | sed 's,/dev/[a-z0-9]*,DISK,'"
chmod 666 "/dev/$disk"
add_result_row "not of root, permitted" setpriv --reuid 65534 --clear-groups --bounding-set -all sh -c "pmem-io ioctl /dev/$disk BLKGETSIZE BLKROSET=1 BLKFLSBUF BLKRASET=256 BLKRRPART BLKPG=1,152,8 | tr '\n' ' '"
chmod 600 "/dev/$disk"
echo 'start=4MiB, size=4MiB' | sfdisk -q --label dos "/dev/$disk"
test_device "partition" "${disk}p1"
add_rows "with a partition" pmem-io ioctl "/dev/$disk" BLKRRPART
exec 5<"/dev/${disk}p1"
add_rows "with a partition that is open" pmem-io ioctl "/dev/$disk" BLKRRPART BLKROSET=1
add_rows "a partition of a disk made read-only" pmem-io ioctl --read-only "/dev/${disk}p1" BLKROGET
exec 5<&-
pmem-io ioctl "/dev/$disk" BLKROSET=0 >/dev/null
pmem-io ioctl --read-only "/dev/$disk" BLKROSET=0 >/dev/null
blkdiscard -f -z -l 1M "/dev/$disk" 2>/dev/null
partx -d "/dev/$disk" 2>/dev/null || :
disk=$(labelled_disk -m sector -s 32M)
test_device "sector" "$disk"
report_rows
