#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# With asynchronous flushes, a FUA write completes after its flush, fsync waits for its own, and so does unbind.
# vm: --bare --append memmap=128M$512M --cpus 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

# milliseconds COMMAND…: how long the command takes, which must succeed.
milliseconds() {
	start=$(date +%s%N)
	"$@"
	echo $((($(date +%s%N) - start) / 1000000))
}

plan 6
provide flush_async=1
provider flush_delay 200
pattern aaaaaaa 8 >/tmp/data

provider flushes 0
took=$(milliseconds dd if=/tmp/data of="/dev/$DISK" bs=4k oflag=direct,dsync status=none)
check "a FUA write and an fsync wait for both" test "$took" -ge 400
is "which were flushed" "$(provider flushes)" 2
provider flushes 0
dd if=/tmp/data of="/dev/$DISK" bs=4k oflag=direct status=none
is "a plain write asks for none" "$(provider flushes)" 0
provider flush_fails 1
check_fails "a FUA write whose flush fails later" sh -c "dd if=/tmp/data of=/dev/$DISK bs=4k oflag=direct,dsync"
provider flush_fails 0

# Unbind while the provider still has the bio.
provider flush_delay 1000
dd if=/tmp/data of="/dev/$DISK" bs=4k seek=1 oflag=direct,dsync status=none 2>/tmp/dd &
sleep 0.5
took=$(milliseconds sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/unbind")
check "unbind waits for what is in flight" test "$took" -ge 300
provider flush_delay 0
wait
check "and the namespace can be taken again" sh -c "echo $NAMESPACE >/sys/bus/nd/drivers/$DRIVER/bind"
