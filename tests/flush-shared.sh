#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Requests that arrive during a flush share the next one; none completes before a flush that began after it.
#
# The flush waits for the host. When it begins, the provider copies a 64 KiB area; when it has succeeded, the provider
# stores the copy in the 64 KiB behind the area, like a host that makes data durable. Each writer increments a counter
# in its own sector, makes it durable in one of three ways, and checks it in the copy.
# quick
# vm: provider 2
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

MEDIUM=65536
WRITERS=16

# One python3, which takes as long to start as it runs, makes all of them.
cat >/tmp/flush-shared.py <<'END'
import errno, mmap, os, sys

disk, way = sys.argv[1], sys.argv[4]
medium, rounds, writers = map(int, (sys.argv[2], sys.argv[3], sys.argv[5]))


def write(slot):
    direct = os.open(disk, os.O_RDWR | os.O_DIRECT)
    dsync = os.open(disk, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
    # All begin when the last one has started.
    os.close(begin[1])
    os.write(ready[1], b"r")
    os.close(ready[1])
    os.read(begin[0], 1)
    page = mmap.mmap(-1, 4096)
    sector = memoryview(page)[:512]
    place = medium - 65536 + slot * 512
    failed = missing = 0
    for count in range(1, rounds + 1):
        page[:8] = count.to_bytes(8, "little")
        try:
            if way == "fsync" or way == "both" and count % 2:
                os.pwritev(direct, [sector], place)
                os.fsync(direct)
            else:
                os.pwritev(dsync, [sector], place)
        except OSError as error:
            failed += 1
            # EIO, or there is no disk any more.
            if error.errno not in (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ENOSPC):
                raise
            continue
        try:
            if not os.preadv(direct, [sector], place + 65536):
                break
        except OSError:
            break
        if int.from_bytes(page[:8], "little") < count:
            missing += 1
    with open(f"/tmp/flush-shared.{slot}", "w") as result:
        print(failed, missing, file=result)


begin, ready = os.pipe(), os.pipe()
for slot in range(1, writers + 1):
    if os.fork() == 0:
        write(slot)
        sys.exit()
# One that fails before leaves no result.
os.close(ready[1])
left = writers
while left and (done := os.read(ready[0], left)):
    left -= len(done)
os.close(begin[1])
for slot in range(writers):
    os.wait()
END

# has_flushed COUNT: the provider has had more flushes than that.
has_flushed() {
	[ "$(provider flushes)" -gt "$1" ]
}

# run_writers ROUNDS WAY: runs all writers at the same time; prints how many of their requests failed, and how many were
# not durable when they had completed.
run_writers() {
	rm -f /tmp/flush-shared.[0-9]*
	python3 /tmp/flush-shared.py "/dev/$DISK" $MEDIUM "$1" "$2" $WRITERS
	awk '{ failed += $1; missing += $2; n++ } END { print n, "writers,", (failed > 0 ? "some" : "none"), "failed,", missing, "missing" }' \
		/tmp/flush-shared.[0-9]*
}

need python3
plan 11
provide flush_async=1
provider medium $MEDIUM

# So long that all have begun in the time of few flushes.
provider flush_delay 200
provider flushes 0
is "fsync, each of 10 rounds" "$(run_writers 10 fsync)" "$WRITERS writers, none failed, 0 missing"
flush_count=$(provider flushes)
if [ "$DRIVER" = rust_pmem ]; then
	# At least one flush per round: the data of a request may arrive after the start of a running flush.
	check "160 requests share flushes" test "$flush_count" -ge 10 -a "$flush_count" -le 80
else
	skip "160 requests share flushes" "C makes $flush_count"
fi

provider flush_delay 1
is "fsync and O_DSYNC, many rounds" "$(run_writers 100 both)" "$WRITERS writers, none failed, 0 missing"
provider flush_fails_every 7
is "some flushes fail" "$(run_writers 70 both)" "$WRITERS writers, some failed, 0 missing"
provider flush_fails 1
is "all flushes fail" "$(run_writers 5 fsync)" "$WRITERS writers, some failed, 0 missing"
is "each request of them" "$(cat /tmp/flush-shared.[0-9]* | sort -u)" "5 0"
provider flush_fails 0
provider flush_fails_every 0
is "no failure stays" "$(run_writers 20 both)" "$WRITERS writers, none failed, 0 missing"

provider flush_delay 20
provider flushes 0
run_writers 200 both >/tmp/flush-shared.all 2>&1 &
check "writers are at it again" wait_for 120 has_flushed 40
check "unbinding in the midst of it" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/unbind"
wait
is "nothing is missing that was promised until then" "$(sed 's/, [a-z]* failed//' /tmp/flush-shared.all)" "$WRITERS writers, 0 missing"
provider flush_delay 0
check "and the namespace can be taken again" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/bind"
rm -f /tmp/flush-shared.*
