#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Writing 1 to a region's deep_flush flushes it, whether a disk is bound or not, and returns the result of the flush.
# compare
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/flush-count.sh"

# write_deep_flush TEXT: prints the error, if any, and the number of flushes.
write_deep_flush() {
	provider flushes 0
	env printf "$1" 2>&1 >"$region/deep_flush" | sed 's/.*write error: //'
	provider flushes
}

plan 16
provide pages=1
region=$ND/region${NAMESPACE#namespace}
region=${region%.*}
record "it says" "$(stat -c %a "$region/deep_flush") $(cat "$region/deep_flush")"
is "1: one flush" "$(write_deep_flush '1\n')" 1
for text in 'y' 'on' '0' 'n' '2' 'flush' ''; do
	record "'$text'" "$(write_deep_flush "$text")"
done
provider flush_fails 1
record "a flush that fails" "$(write_deep_flush 1)"
provider flush_fails 0
provider watch 0
pattern aaaaaaa 1 >/tmp/data
write_sectors "$DISK" 0 1 </tmp/data
is "what was written before" "$(write_deep_flush 1 && provider seen)" "1
$(od -An -tu8 -N8 /tmp/data | tr -d ' ')"
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/unbind"
is "no disk: one flush" "$(write_deep_flush 1)" 1
echo "$NAMESPACE" >"/sys/bus/nd/drivers/$DRIVER/bind"
provider_cleanup

provide pages=1 flush_async=1
region=$ND/region${NAMESPACE#namespace}
region=${region%.*}
is "an asynchronous provider: one flush" "$(write_deep_flush 1)" 1
provider flush_fails 1
record "an asynchronous provider: a flush that fails" "$(write_deep_flush 1)"
provider flush_fails 0
provider_cleanup
provide pages=1 dimm=0
region=$ND/region${NAMESPACE#namespace}
check_fails "memory of which no flush is known: no such file" test -e "${region%.*}/deep_flush"
is "nor FUA" "$(cat "/sys/block/$DISK/queue/fua")" 0
