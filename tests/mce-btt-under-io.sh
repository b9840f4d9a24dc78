#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks under writers and readers of a disk in sector mode: each sector has its data or an error, and can be written again.
#
# libnvdimm looks at the number of bad blocks without their lock, and again with it (is_bad_pmem): a race that is not of the driver.
# expect-splat: KCSAN: data-race in badblocks_set / nsio_rw_bytes
# quick
# vm: provider 2
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/badblocks.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

STRIDE=$((1 << 20))
PLACES=32
# Pages of the data that fail.
FAILING=200
SECONDS_=20

cleanup() {
	for process in $processes; do
		kill "$process" 2>/dev/null
	done
	wait
	provider_cleanup
}

# write_places: writes the places for the time of the test.
write_places() {
	places "$disk" write --stride $STRIDE --count $PLACES --seed 4 --seconds $SECONDS_
}

# read_others [OPTION…]: reads what is written only before and after: it has its data or an error.
read_others() {
	places "$disk" verify --offset 512K --length 64K --stride $STRIDE --count $PLACES --seed 3 "$@"
}

[ "$DRIVER" = rust_pmem ] || skip_all "C lists machine checks on memory of the NFIT alone"
need pmem-io ndctl
processes=
plan 10
provide size=$((96 << 20)) async=0
disk=$(make_namespace -e "$NAMESPACE" -m sector -l 4096 | jq -r .blockdev)
btt=$(device_of_disk "$disk")
list=$ND/$btt/errors/list
data=$((4096 + $(cat "/sys/kernel/debug/btt/$btt/arena0/dataoff")))
load_mce_inject
check "filled" pmem-io fill --direct "/dev/$disk" --length 32M --seed 3
read_others >/tmp/read
write_places >/tmp/written &
processes=$!
read_others --seconds $SECONDS_ >>/tmp/read &
processes="$processes $!"
sleep 1
# In the first half of the data.
mce_inject_pages $((MEMORY + data)) $((256 << 10)) 0 $((FAILING - 17))
mce_raise_pages $((MEMORY + data + 4096)) $((3 << 20)) 0 15
check "the errors are listed" test "$(wc -l <"$list")" -gt 100
for process in $processes; do
	wait "$process"
done
places "$disk" verify --stride $STRIDE --count $PLACES --seed 4 >/tmp/verified || :
sed 's/^/# /' /tmp/written /tmp/read /tmp/verified
check "writes succeed, or fail with I/O errors" only_io_errors /tmp/written
check "what is only read has its data, or an error" only_io_errors /tmp/read
check "some of it has one" grep -q '^Input/output error: ' /tmp/read
check "what was written has its data, or an error" only_io_errors /tmp/verified
check "all is written over" pmem-io fill --direct "/dev/$disk" --length 32M --seed 5
check "and read" pmem-io verify --direct "/dev/$disk" --length 32M --seed 5
check "bound again" rebind "$btt"
check "it is there" pmem-io verify --direct "/dev/$(disk_of "$btt")" --length 32M --seed 5
