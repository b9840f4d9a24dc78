#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Two hundred cycles of load and unload with a namespace of each mode leak no memory, mapping, iomem claim or file.
# compare
# vm: labels
# timeout: 400
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/growth.sh"

# run_cycles N: in one process: in a guest, to start one takes some 30 ms.
run_cycles() {
	python3 - "$DRIVER" "$file" "$1" <<-END
		import ctypes, glob, os, sys

		libc = ctypes.CDLL(None, use_errno=True)
		driver, file, cycles = sys.argv[1:]
		image_of = open
		if file.endswith(".xz"):
		    from lzma import open as image_of
		image = image_of(file, "rb").read()


		def must(status):
		    if status:
		        sys.exit(os.strerror(ctypes.get_errno()))


		for cycle in range(int(cycles)):
		    # As rmmod does.
		    must(libc.delete_module(driver.encode(), ctypes.c_uint(os.O_NONBLOCK)))
		    must(libc.init_module(image, ctypes.c_ulong(len(image)), b""))
		    # Some probes go on in the background.
		    for bus in glob.glob("$ND/ndbus*/wait_probe"):
		        open(bus).read()
	END
}

# count_objects: the used objects of each slab cache, the vmalloc mappings, and the unreclaimable and per-CPU pages.
count_objects() {
	sleep 2
	objects >/tmp/objects
	awk '/^(SUnreclaim|Percpu|PageTables|KernelStack|VmallocUsed):/ { print $1, $2 / 4 }' /proc/meminfo >>/tmp/objects
	sort /tmp/objects
}

# list_files: all names that do not depend on time.
list_files() {
	cat /proc/iomem /proc/partitions
	cut -d ' ' -f 1 /proc/modules
	find /sys/kernel/slab -maxdepth 1 ! -name ':*' | sort
	find /sys/kernel/debug /sys/bus/nd /sys/block /sys/class/bdi /sys/class/dax /sys/module /sys/kernel/tracing/events /dev \
		-maxdepth 3 2>/dev/null | grep -v '/dev/pts/\|/holders/' | sort
}

# grown NAME N: those whose names match, and of which there are N more.
grown() {
	awk -v name="$1" -v more="$2" '$1 ~ name && $3 - $2 >= more { print $1 }' /tmp/objects
}

need python3
plan 11
load_driver
fresh_labels
region=$(labelled_region)
for mode in "fsdax -M dev" "fsdax -M mem" "sector -l 4096" raw; do
	# shellcheck disable=SC2086 # words
	ndctl create-namespace -r "$region" -s 32M -m $mode >/dev/null
done
settle
case $DRIVER in
rust_pmem) file=$MODULE ;;
*) file=$(modinfo -n "$DRIVER") ;;
esac
cp "$file" /run/
file=/run/${file##*/}

run_cycles 10
list_files >/tmp/files.1
disks=$(find /sys/block -name 'pmem*' | wc -l)
# Four in the region with labels, one in each other region, of which x86-64 has one more.
case ${KERNEL:-} in
arm64*) wanted=5 ;;
*) wanted=6 ;;
esac
is "disks in the beginning" "$disks" $wanted
start=$(date +%s)
count_objects >/tmp/objects.1
run_cycles 200
count_objects >/tmp/objects.2
echo "# 200 times in $(($(date +%s) - start)) s"
list_files >/tmp/files.2
is "disks in the end" "$(find /sys/block -name 'pmem*' | wc -l)" "$disks"
join /tmp/objects.1 /tmp/objects.2 >/tmp/objects
awk '$3 > $2 { print "#", $1, $2, "->", $3 }' /tmp/objects
if [ -e /sys/kernel/debug/kmemleak ]; then
	skip "what there is 150 of more" "KASAN keeps freed objects for a while; kmemleak looks for leaks"
else
	is_empty "what there is 150 of more" grown . 150
fi
is_empty "caches that came" join -v 2 /tmp/objects.1 /tmp/objects.2
check "the mappings are counted" grep -q '^mappings ' /tmp/objects
is_empty "mappings" grown '^mappings$' 9
is_empty "files and claims" diff /tmp/files.1 /tmp/files.2
check "the disks work" pmem-io fill --direct --length 4M "/dev/$(plain_disk)"
check "the module goes" rmmod "$DRIVER"
check_fails "no claim is left" grep 'namespace\|pfn\|btt' /proc/iomem
is_empty "no disk is left" find /sys/block -name 'pmem*'
rm -f "$file"
