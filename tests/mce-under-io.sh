#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks under direct reads from deep queues with registered buffers, and under cached ones, cost only the pages that failed.
#
# Under writes, which repair them meanwhile, each page has its data or an error.
# vm: three 2
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/busy.sh"
. "$(dirname "$0")/lib/badblocks.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

STRIDE=$((1 << 20))
PAGES=32
cleanup() {
	kill $fio_pid $cached_pid 2>/dev/null
	wait
	[ "$DRIVER" != rust_pmem ] || blkdiscard -f -z "/dev/$disk"
}

# read_cached: reads the disk through the page cache, again and again.
read_cached() {
	while :; do
		blockdev --flushbufs "/dev/$disk"
		pmem-io places "/dev/$disk" verify --offset 4K --length 64K --stride $STRIDE --count $PAGES --seed 3 >>/tmp/cached 2>&1 || :
	done
}

# fail_pages: two at a time: one half as exceptions of the processor, the other as reports to the kernel.
fail_pages() {
	mce_inject_pages "$start" $STRIDE $((PAGES / 2)) $((PAGES - 1)) &
	injector=$!
	mce_raise_pages "$start" $STRIDE 0 $((PAGES / 2 - 1))
	wait $injector
}

# write_pages SECONDS: writes these pages for this time, alone and with their neighbours.
write_pages() {
	places "$disk" write --stride $STRIDE --count $PAGES --seed 4 --seconds "$1" >/tmp/written.page &
	places "$disk" write --length 64K --stride $STRIDE --count $PAGES --seed 4 --seconds "$1" >/tmp/written
	wait $!
}

# all_are_repaired: a write to each page, after which none is listed.
all_are_repaired() {
	[ "$(places "$disk" write --stride $STRIDE --count $PAGES --seed 4)" = "ok: $PAGES" ] && cmp "$list" /dev/null
}

# good_data: reads the data between the pages that fail.
good_data() {
	page=0
	while [ $page -lt $PAGES ]; do
		pmem-io verify --direct "/dev/$disk" --offset $((page * STRIDE + 4096)) --length $((STRIDE - 4096)) --seed 3 || return
		page=$((page + 1))
	done
}

# read_pages: reads the pages that failed; prints the answers, each once.
read_pages() {
	for page in $(seq 0 $((PAGES - 1))); do
		errno_of pmem-io pread "/dev/$disk" --direct --offset $((page * STRIDE)) --length 4K
	done | sort -u
}

all_are_listed() {
	unlisted=$(unlisted_pages "$list" $STRIDE 0 $PAGES) && [ -z "$unlisted" ]
}

need fio pmem-io
plan 15
load_driver
case $DRIVER in
rust_pmem)
	namespace=$(e820_ns)
	disk=$(raw_disk "$namespace")
	list=$ND/$namespace/errors/list length=4096
	;;
nd_pmem)
	# It lists machine checks on memory of the NFIT alone.
	namespace=$(nfit_ns)
	disk=$(raw_disk "$namespace")
	list=/sys/block/$disk/badblocks length=8
	;;
esac
start=$(cat "$ND/$namespace/resource")
load_mce_inject
blkdiscard -f -z "/dev/$disk"
check "filled" pmem-io fill --direct "/dev/$disk" --length 32M --seed 3
start_fio "/dev/$disk" --filename="/dev/$disk" --rw=randread --direct=1 --size=32M --bsrange=4k-128k --ioengine=io_uring \
	--fixedbufs=1 --iodepth=16 --time_based --runtime=900 --continue_on_error=io --error_dump=1
: >/tmp/cached
read_cached &
cached_pid=$!
fail_pages
check "all pages are listed" wait_for 60 all_are_listed
check "fio goes on" kill -0 $fio_pid
sleep 1
stop_fio
wait_for 60 test -s /tmp/cached
kill $cached_pid
is "reads through the page cache have seen nothing but good data" "$(sed 's/:.*//' /tmp/cached | sort -u)" ok
is "it has seen I/O errors alone" "$(sed -n 's/.*io_u error on file [^:]*: \(.*\): read offset.*/\1/p' /tmp/fio.errors | sort -u)" "Input/output error"
is "none of the pages can be read" "$(read_pages)" "Input/output error"
check "all other data can" good_data
is "no more is listed" "$(awk -v length_of_page="$length" '{ sum += $2 } END { print sum / length_of_page }' "$list")" $PAGES
if [ "$DRIVER" = rust_pmem ]; then
	check "all is written over" pmem-io fill --direct "/dev/$disk" --length 32M --seed 4
	check "and read" pmem-io verify --direct "/dev/$disk" --length 32M --seed 4
	write_pages 20 &
	writers=$!
	sleep 1
	dmesg -C
	fail_pages
	check "exceptions come meanwhile" test "$(dmesg | grep -c 'Memory failure: 0x[0-9a-f]*: recovery action')" -ge $((PAGES / 2))
	wait $writers
	places "$disk" verify --stride $STRIDE --count $PAGES --seed 4 >/tmp/verified || :
	sed 's/^/# /' /tmp/written /tmp/written.page /tmp/verified
	check "writes succeed, or fail with I/O errors" only_io_errors /tmp/written /tmp/written.page
	check "each page then has its data, or an error" only_io_errors /tmp/verified
	check "a last write repairs all" wait_for 60 all_are_repaired
	check "all data is there" pmem-io verify --direct "/dev/$disk" --length 32M --seed 4
else
	for row in "all is written over" "and read" "exceptions come meanwhile" "writes succeed, or fail with I/O errors" \
		"each page then has its data, or an error" "a last write repairs all" "all data is there"; do
		skip "$row" "with C, a bus that can't clear poison repairs nothing"
	done
fi
