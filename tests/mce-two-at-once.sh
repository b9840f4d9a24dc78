#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Two machine checks at once, in two sectors of a page or in two namespaces, while these are read, list both and nothing else.
#
# One comes as an exception of a processor, the other from mce-inject: a processor that gets a second exception before it
# has handled the first one shuts down.
# vm: labels 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

STRIDE=65536
PAGES=8

cleanup() {
	# shellcheck disable=SC2086 # several words
	kill $readers 2>/dev/null
	wait
	forget_errors "$e820"
	rm -f /tmp/mce-two-at-once.*
}

# start_of DISK: its physical address.
start_of() {
	cat "/sys/block/$1/device/resource"
}

# inject_two ADDRESS ADDRESS LSB: injects two machine checks at once, one by each processor.
inject_two() {
	# shellcheck disable=SC2016 # for that shell
	taskset -c 1 sh -c '. "$0"; mce_inject "$1" "$2"' "$TESTS/lib/mce-inject.sh" "$1" "$3" &
	inject_pid=$!
	taskset -c 0 host mce $(($2)) "$3"
	wait $inject_pid
}

# start_reading DISK OFFSET: reads the places from this one on, again and again.
start_reading() {
	pmem-io places "/dev/$1" read --direct --offset "$2" --stride $STRIDE --count $PAGES --seconds 600 >/dev/null 2>&1 &
	readers="$readers $!"
}

stop_reading() {
	# shellcheck disable=SC2086 # several words
	kill $readers
	# shellcheck disable=SC2086
	wait $readers 2>/dev/null || :
	readers=
}

# wanted SECTOR OFFSET LENGTH…: the lines of badblocks if these sectors of each place are listed, from the first one on.
wanted() {
	awk -v stride=$((STRIDE / 512)) -v count=$PAGES -v parts="$*" '
		BEGIN { n = split(parts, part, " ")
			for (i = 0; i < count; i++) for (j = 2; j < n; j += 2) print part[1] + i * stride + part[j], part[j + 1] }'
}

are_listed() {
	[ "$(cat "/sys/block/$1/badblocks")" = "$2" ]
}

# listed DISK WANTED: waits for this badblocks; prints what is there, briefly.
listed() {
	if wait_for 60 are_listed "$1" "$2"; then
		echo "as wanted"
	else
		tr '\n' ',' <"/sys/block/$1/badblocks"
	fi
}

# places DISK OFFSET LENGTH ACCESS: does that at each place.
places() {
	pmem-io places "/dev/$1" "$4" --direct --seed 3 --offset "$2" --length "$3" --stride $STRIDE --count $PAGES 2>&1
}

# test_page NAME DISK BETWEEN SECTORS…: 6 rows: two sectors of a page at once, the second and the last one. These sectors are listed
# then, and BETWEEN is the result of reads of what is between the two.
test_page() {
	name=$1 disk=$2 between=$3
	shift 3
	start=$(($(start_of "$disk") + 1048576))
	pmem-io fill --direct --seed 3 --length 8M "/dev/$disk"
	start_reading "$disk" 1M
	for page in $(seq 0 $((PAGES - 1))); do
		inject_two $((start + page * STRIDE + 512)) $((start + page * STRIDE + 3584)) 9
	done
	stop_reading
	is "$name: both sectors are listed, and no more" "$(listed "$disk" "$(wanted 2048 "$@")")" "as wanted"
	is "$name: the first one can't be read" "$(places "$disk" $((1048576 + 512)) 512 read)" "Input/output error: $PAGES"
	is "$name: nor can the second one" "$(places "$disk" $((1048576 + 3584)) 512 read)" "Input/output error: $PAGES"
	is "$name: what is between them" "$(places "$disk" $((1048576 + 1024)) 2560 verify)" "$between: $PAGES"
	is "$name: the pages before" "$(places "$disk" $((1048576 - 4096)) 4096 verify)" "ok: $PAGES"
	is "$name: the pages behind" "$(places "$disk" $((1048576 + 4096)) 4096 verify)" "ok: $PAGES"
}

readers=
plan 20
need pmem-io taskset
load_driver
load_mce_inject
e820=$(raw_disk "$(e820_ns)")
first=$(labelled_disk -m raw -s 48M)
second=$(raw_disk "$(plain_namespace)")
forget_errors "$e820"

test_page "NVDIMM" "$first" ok 1 1 7 1
if [ "$DRIVER" = rust_pmem ]; then
	# This memory has struct pages: memory-failure recovery, which follows the exception, takes the whole page.
	test_page "e820" "$e820" "Input/output error" 0 8
	check "e820: all is written over" pmem-io fill --direct --seed 3 --length 8M "/dev/$e820"
	is_empty "e820: nothing is listed then" cat "/sys/block/$e820/badblocks"
else
	while read -r row; do
		skip "e820: $row" "C lists machine checks on memory of the NFIT alone"
	done <<END
both sectors are listed, and no more
the first one can't be read
nor can the second one
what is between them
the pages before
the pages behind
all is written over
nothing is listed then
END
fi

# In both namespaces; the first one has those of before as well.
pmem-io fill --direct --seed 3 --length 8M "/dev/$second"
start_reading "$first" 4M
start_reading "$second" 1M
start=$(($(start_of "$first") + 4194304))
other=$(($(start_of "$second") + 1048576))
for page in $(seq 0 $((PAGES - 1))); do
	inject_two $((start + page * STRIDE)) $((other + page * STRIDE)) 12
done
stop_reading
is "two namespaces: the list of the first one" "$(listed "$first" "$(wanted 2048 1 1 7 1)
$(wanted 8192 0 8)")" "as wanted"
is "two namespaces: the list of the second one" "$(listed "$second" "$(wanted 2048 0 8)")" "as wanted"
is "two namespaces: the pages of the first one can't be read" "$(places "$first" 4194304 4096 read)" "Input/output error: $PAGES"
is "two namespaces: nor can those of the second one" "$(places "$second" 1048576 4096 read)" "Input/output error: $PAGES"
is "two namespaces: the pages behind, on the first one" "$(places "$first" 4198400 4096 verify)" "ok: $PAGES"
is "two namespaces: the same pages of the second one are good" "$(places "$second" 4194304 4096 verify)" "ok: $PAGES"
