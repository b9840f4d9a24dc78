#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Requests that arrive during a flush that waits for the host share the next one; none ends before a flush that began after it.
#
# The provider copies a 64 KiB area when a flush begins, to the 64 KiB behind it when the flush has ended well: what a host has
# made durable. Each writer counts up in a sector of its own, makes the count durable in one of three ways, and looks for it there.
# vm: --bare --append memmap=128M$512M
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

MEDIUM=65536
WRITERS=16

cat >/tmp/flush-shared.py <<'END'
import mmap, os, sys

disk, medium, slot, rounds, way = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
direct = os.open(disk, os.O_RDWR | os.O_DIRECT)
dsync = os.open(disk, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
page = mmap.mmap(-1, 4096)
place = medium - 65536 + slot * 512
failed = missing = 0
for count in range(1, rounds + 1):
    page[:8] = count.to_bytes(8, "little")
    sector = memoryview(page)[:512]
    try:
        if way == "fsync" or way == "both" and count % 2:
            os.pwritev(direct, [sector], place)
            os.fsync(direct)
        else:
            os.pwritev(dsync, [sector], place)
    except OSError as error:
        failed += 1
        if error.errno != 5:
            raise
        continue
    os.preadv(direct, [sector], place + 65536)
    if int.from_bytes(page[:8], "little") < count:
        missing += 1
print(failed, missing)
END

# writers ROUNDS WAY: so many at once; how many of their requests failed, and how many were not durable when they had ended.
writers() {
	for writer in $(seq $WRITERS); do
		python3 /tmp/flush-shared.py "/dev/$DISK" $MEDIUM "$writer" "$1" "$2" >"/tmp/flush-shared.$writer" &
	done
	wait
	awk '{ failed += $1; missing += $2; n++ } END { print n, "writers,", (failed > 0 ? "some" : "none"), "failed,", missing, "missing" }' \
		/tmp/flush-shared.[0-9]*
}

need python3
plan 10
provide flush_async=1
provider medium $MEDIUM

provider flush_delay 30
provider flushes 0
is "fsync, each of 10 rounds" "$(writers 10 fsync)" "$WRITERS writers, none failed, 0 missing"
flushes=$(provider flushes)
if [ "$DRIVER" = rust_pmem ]; then
	# Not fewer than rounds: a request's data may be behind a flush that is under way.
	check "160 requests share flushes" test "$flushes" -ge 10 -a "$flushes" -le 80
else
	skip "160 requests share flushes" "C makes $flushes"
fi

provider flush_delay 1
is "fsync and O_DSYNC, many rounds" "$(writers 400 both)" "$WRITERS writers, none failed, 0 missing"
provider flush_fails_every 7
is "some flushes fail" "$(writers 200 both)" "$WRITERS writers, some failed, 0 missing"
provider flush_fails 1
is "all flushes fail" "$(writers 5 fsync)" "$WRITERS writers, some failed, 0 missing"
is "each request of them" "$(cat /tmp/flush-shared.[0-9]* | sort -u)" "5 0"
provider flush_fails 0
provider flush_fails_every 0
is "no failure stays" "$(writers 20 both)" "$WRITERS writers, none failed, 0 missing"

provider flush_delay 20
provider flushes 0
writers 200 both >/tmp/flush-shared.all 2>&1 &
# shellcheck disable=SC2016 # for sh
check "writers are at it again" wait_for 60 sh -c '[ "$(cat /sys/module/pmem_provider/parameters/flushes)" -gt 40 ]'
check "unbinding in the midst of it" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/unbind"
wait
provider flush_delay 0
check "and the namespace can be taken again" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/bind"
rm -f /tmp/flush-shared.*
