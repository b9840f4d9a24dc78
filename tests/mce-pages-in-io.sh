#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Direct I/O and pipes that use pages of a DAX mapping get an error after a machine check in one of them.
#
# The disk at the other end of the I/O is the driver's, so that its copies have an unmapped page as their source or target.
# compare
# kernel: device_dax transparent_hugepage
# quick
# vm: labels 2
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/busy.sh"
. "$(dirname "$0")/lib/dax-faults.sh"

cleanup() {
	exec 3<&-
	untrace_faults
	umount $MNT 2>/dev/null
	modprobe -r device_dax dax_pmem
	# The pages of device DAX as well.
	labelled_disk -m raw >/dev/null
	rm -f /tmp/mce-pages-in-io.*
}

# inject_mce ADDRESS: prints a command that injects a machine check in the page, and waits until the page is unmapped from the
# direct map: that comes after the kernel's message, and before the NVDIMM's bus lists the page (uc_decode_notifier, nfit_handle_mce).
inject_mce() {
	printf 'dmesg -C; host mce %d; until dmesg | grep -q "recovery action"; do sleep 0.1; done; until %s; do sleep 0.1; done' \
		"$(($1))" "awk -v at=$((($1 - region_start) / 512)) '\$1 <= at && at < \$1 + \$2 { found = 1 } END { exit !found }' $ND/$region/badblocks"
}

# make_dax ALIGNMENT: makes a device DAX namespace whose pages have this size; prints the name of its device.
make_dax() {
	make_namespace -r "$region" -m devdax -s 32M -a "$1" | jq -r '.daxregion.devices[].chardev'
}

# read_pipe: reads two pages of the pipe, one by one; prints which of them are those of the file.
read_pipe() {
	for offset in 8K 12K; do
		dd bs=4K count=1 of=/tmp/mce-pages-in-io.page <&3 2>/tmp/mce-pages-in-io.dd || {
			sed -n 's/.*: \([A-Z]\)/\1/p' /tmp/mce-pages-in-io.dd
			continue
		}
		if cmp -s -n 4096 -i "0:$offset" /tmp/mce-pages-in-io.page /tmp/mce-pages-in-io.wanted; then
			echo "as in the file"
		else
			echo "not as in the file"
		fi
	done
}

# test_files TYPE
test_files() {
	make_fs "$1" "$disk"
	mount_dax "$disk"
	fallocate -l 4M $MNT/huge
	pmem-io fill $MNT/huge
	trace_faults
	record_result "$1: a disk read into a huge page of which a page fails before" pmem-io map --seed 9 --length 4M $MNT/huge load \
		run="$(inject_mce "$(pmem-io phys --offset 3M $MNT/huge)")" direct-read="/dev/$other"
	is "$1: it was a huge page" "$(count_faults | sed 's/,.*//')" "2 of 2 MiB"
	untrace_faults
	check "$1: the pages behind the one that failed can be read" pmem-io pread --offset 3076K --length 1020K $MNT/huge
	fallocate -l 64K $MNT/file
	pmem-io fill $MNT/file
	cp $MNT/file /tmp/mce-pages-in-io.wanted
	record_result "$1: a disk read into a page that fails before" pmem-io map --seed 9 --length 8K $MNT/file load \
		run="$(inject_mce "$(pmem-io phys --offset 4K $MNT/file)")" direct-read="/dev/$other"
	check "$1: the page before it is read" pmem-io verify --seed 9 --length 4K $MNT/file
	pmem-io map --offset 8K --length 8K $MNT/file vmsplice-out >&3
	sh -c "$(inject_mce "$(pmem-io phys --offset 12K $MNT/file)")"
	record "$1: a pipe with a page that failed" "$(read_pipe)"
	exec 3<&-
	check "$1: the file can be removed then" timeout 20 rm $MNT/file
	umount $MNT
}

# fio_errors WAY: does direct I/O to the disk, from or to a fixed buffer of an io_uring in device DAX, while a page of the
# buffer fails; prints the first error.
fio_errors() {
	trap '' BUS
	start_fio "/dev/$other" --filename="/dev/$other" --rw="$1" --bs=64k --direct=1 --ioengine=io_uring --fixedbufs=1 \
		--iomem=mmapshared:"$dax" --scramble_buffers=0 --time_based --runtime=900 --continue_on_error=io --output-format=json
	sh -c "$(inject_mce "$(pmem-io phys --offset "$2" "$dax")")"
	sleep 1
	stop_fio
	trap - BUS
	fio_jobs '"error \(.first_error), often: \(.total_err > 1)"'
}

plan 18
need fio
load_driver
region=$(labelled_region)
region_start=$(($(cat "$ND/$region/resource")))
disk=$(labelled_disk -m fsdax -M mem -s 320M)
other=$(make_namespace -r "$region" -m raw -s 32M | jq -r .blockdev)
pmem-io fill --direct --seed 9 "/dev/$other"
mkfifo /tmp/mce-pages-in-io.pipe
for type in ext4 xfs; do
	exec 3<>/tmp/mce-pages-in-io.pipe
	test_files $type
done

modprobe device_dax
dax=/dev/$(make_dax 4096)
pmem-io map --length 4M "$dax" store >/dev/null
is "a disk read into a fixed buffer in device DAX" "$(fio_errors randread 16K)" "error 5, often: true"
# The page at 16 KiB has failed before, and one more fails.
if [ "$DRIVER" = rust_pmem ]; then
	is "a disk written from one" "$(fio_errors randwrite 32K)" "error 5, often: true"
else
	skip "a disk written from one" "the kernel crashes with C"
fi

# Each request is 64 KiB of a huge page, in one segment; the page that fails is in the middle.
dax=$(make_dax 2M)
start=$(cat "/sys/bus/dax/devices/$dax/resource")
record_result "a disk read into a fixed buffer of huge pages in device DAX" pmem-io map --seed 9 --length 4M "/dev/$dax" store \
	pin-read="/dev/$other,$(inject_mce $((start + (3 << 20) + 32768)))"
# The page of before is behind this one.
if [ "$DRIVER" = rust_pmem ]; then
	is "a disk written from one of huge pages" "$(errno_of pmem-io map --length 4M "/dev/$dax" \
		pin-write="/dev/$other,$(inject_mce $((start + (2 << 20) + 32768)))")" "Input/output error"
else
	skip "a disk written from one of huge pages" "the kernel crashes with C"
fi
