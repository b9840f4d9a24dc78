#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A load from poison fails alone, in the driver, a file system and a program: the machine check comes at that very instruction.
#
# Unless QEMU counts instructions, it takes no interrupt before the end of `rep movsb`.
# vm: icount
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/dax-faults.sh"
. "$(dirname "$0")/lib/poison.sh"

cleanup() {
	host poison none
	untrace_faults
	umount $MNT 2>/dev/null
	for disk in /sys/block/pmem*; do
		forget_errors "${disk##*/}"
	done
	unload_driver
}

# machine_checks: the number of exceptions that the processor has taken.
machine_checks() {
	awk '$1 == "MCE:" { print $2 }' /proc/interrupts
}

# on_disk VERB OFFSET LENGTH [OPTION OF pmem-io…]: direct I/O.
on_disk() {
	disk_verb=$1 disk_offset=$2 disk_length=$3
	shift 3
	pmem-io "$disk_verb" --direct --offset "$disk_offset" --length "$disk_length" "$@" "/dev/$disk"
}

# test_disk NAME NAMESPACE: poison in the second sector of the page at 1 MiB.
test_disk() {
	name=$1
	disk=$(disk_of "$2")
	on_disk fill 1020K 12K
	poison $(($(cat "$ND/$2/resource") + (1 << 20) + 512 + 192))
	is "$name: a read of the page" "$(errno_of on_disk pread 1M 4K)" 'Input/output error'
	check "$name: the sector before" on_disk verify 1M 512
	check "$name: those behind" on_disk verify 1049600 3K
	if [ "$DRIVER" = rust_pmem ] || [ "$name" = NVDIMM ]; then
		check "$name: it is listed" wait_for 60 grep -qx '2049 1' "/sys/block/$disk/badblocks"
		taken=$(machine_checks)
	else
		skip "$name: it is listed" "C lists machine checks on memory of the NFIT alone"
		taken=
	fi
	is "$name: a read of more" "$(errno_of on_disk pread 512K 1M)" 'Input/output error'
	if [ -n "$taken" ]; then
		is "$name: it is not loaded again" "$(machine_checks)" "$taken"
	else
		skip "$name: it is not loaded again" "C lists machine checks on memory of the NFIT alone"
	fi
}

# poison_page NUMBER: poison in the middle of a page of the file.
poison_page() {
	poison $(($(pmem-io phys --offset $(($1 * 4096)) $MNT/file) + 2048))
}

# poison_mapping FILE START PAGE: prints a command that poisons the page with this number of the file, in a mapping of its parent
# process that starts at page START.
poison_mapping() {
	# shellcheck disable=SC2016 # for the command's shell
	printf 'start=$(sed -n "s|-.*%s||p" /proc/$PPID/maps); host poison $((0x$start + %d)) %d' "$1" $((($3 - $2) * 4096)) \
		$(($(pmem-io phys --offset $(($3 * 4096)) "$1")))
}

need pmem-io ndctl xfs_io
plan 32
load_driver
test_disk NVDIMM "$(nfit_ns)"
host poison none
test_disk e820 "$(e820_ns)"
if [ "$DRIVER" = rust_pmem ]; then
	is "e820: a write over poison that stays" "$(errno_of on_disk fill 1M 4K --seed 2)" 'Input/output error'
else
	skip "e820: a write over poison that stays" "C lists machine checks on memory of the NFIT alone"
fi
host poison none
check "e820: the page is written" on_disk fill 1M 4K --seed 2
check "e820: and read" on_disk verify 1M 4K --seed 2
check "e820: the page before it" on_disk verify 1020K 4K
check "e820: and that behind it" on_disk verify 1028K 4K

make_fs xfs "$disk" -m reflink=1,rmapbt=1
mount_dax "$disk"
truncate -s 64K $MNT/file
pmem-io fill $MNT/file
cp --reflink=always $MNT/file $MNT/other
sync
poison_page 2
is "a read of a file ends there" "$(pmem-io pread --length 64K $MNT/file)" $((8192 + 2048))
check "the pages before it" pmem-io verify --length 8K $MNT/file
check "and those behind" pmem-io verify --offset 12K --length 52K $MNT/file
poison_page 4
is "a write that copies the rest of a shared page" "$(errno_of pmem-io pwrite --offset 17K --length 512 --seed 2 $MNT/other)" 'Input/output error'
check "the file that it is shared with" pmem-io verify --offset 20K --length 44K $MNT/file
host poison none
# Code 4: BUS_MCEERR_AR.
is "a load by a program" "$(pmem-io map --offset 32K --length 8K $MNT/file load run="$(poison_mapping $MNT/file 8 8)" load | grep '^page')" \
	"page 0 code 4 lsb 12 address 0x0"
host poison none
check "the page behind it" pmem-io map --offset 36K --length 4K $MNT/file verify
fallocate -l 4M $MNT/huge
pmem-io map-write $MNT/huge
trace_faults
signal=$(pmem-io map --offset 2M --length 2M $MNT/huge load run="$(poison_mapping $MNT/huge 512 612)" load | grep '^page')
if kernel_has transparent_hugepage; then
	# The signal is for all of the huge page. The good pages are mapped one by one then.
	is "a load by a program from a huge page" "$signal" "page 100 code 4 lsb 21 address 0x64000"
	is "it was mapped by a huge page" "$(count_faults | cut -d , -f 1)" "1 of 2 MiB"
else
	skip "a load by a program from a huge page" "the kernel has none"
	skip "it was mapped by a huge page" "the kernel has none"
fi
untrace_faults
host poison none
check "the pages before the one of a huge page" pmem-io verify --length 2448K $MNT/huge
check "and those behind it" pmem-io verify --offset 2452K --length 1644K $MNT/huge
poison_page 12
if [ "$DRIVER" = rust_pmem ]; then
	is "a disk written from poison" \
		"$(errno_of pmem-io map --offset 48K --length 4K $MNT/file direct-write="/dev/$(disk_of "$(nfit_ns)")")" 'Input/output error'
else
	skip "a disk written from poison" "the kernel crashes with C"
fi
host poison none
umount $MNT

namespace=$(nfit_ns)
forget_errors_now "$(disk_of "$namespace")"
disk=$(make_namespace -e "$namespace" -m sector -l 4096 | jq -r .blockdev)
# Nothing is written yet, so that the blocks are in order.
data=$((4096 + $(cat "/sys/kernel/debug/btt/$(device_of_disk "$disk")/arena0/dataoff")))
poison $(($(cat "$ND/$namespace/resource") + data + (5 << 12)))
is "sector mode: a read of the block" "$(errno_of on_disk pread 20K 4K)" 'Input/output error'
check "sector mode: the block before" on_disk pread 16K 4K
check "sector mode: and that behind" on_disk pread 24K 4K
host poison none
