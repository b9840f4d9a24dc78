#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A write whose page fails again after the bus has cleared it, but before the write ends, fails; the page stays bad.
# quick
# vm: provider 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/mce-inject.sh"

cleanup() {
	[ ! -d /sys/module/pmem_provider ] || provider clear_delay 0
	provider_cleanup
}

# write_page: writes the bad page; its result is in /tmp/answer.
write_page() {
	pmem-io pwrite --direct "/dev/$DISK" --offset 1M --length 4K >/tmp/answer 2>&1
}

[ "$DRIVER" = rust_pmem ] || skip_all "nd_pmem has no errors/list"
need pmem-io
plan 10
load_mce_inject
provide pages=1 bad=1M+4K
list=$ND/$NAMESPACE/errors/list
is "before" "$(badblocks_of "$DISK")" 2048+8
# Longer than any test.
provider clear_delay 3600000
write_page &
writer=$!
check "the bus has cleared it" wait_for 60 grep -q Y /sys/module/pmem_provider/parameters/clearing
check_fails "meanwhile it can't be read" pmem-io pread --direct "/dev/$DISK" --offset 1M --length 4K
mce_inject $((MEMORY + (1 << 20) + 512)) 9
check "a sector fails again" wait_for 60 grep -q machine-check "$list"
is "the write is still under way" "$(provider clearing)" Y
provider clear_delay 0
wait $writer || :
check "the write fails" grep -q "Input/output error" /tmp/answer
is "the page stays bad" "$(badblocks_of "$DISK")" 2048+8
check "another write" write_page
is_empty "repairs it" cat "$list" "/sys/block/$DISK/badblocks"

# The bus destroys what it clears, and a read must not see that.
provider clear_wipes 1
provider clear_delay 20
pmem-io fill --direct "/dev/$DISK" --offset 1M --length 4K
pmem-io places "/dev/$DISK" verify --direct --offset 1M --stride 4K --count 1 --seconds 8 >/tmp/seen &
reader=$!
while kill -0 $reader 2>/dev/null; do
	provider bad 1M+4K
	pmem-io fill --direct "/dev/$DISK" --offset 1M --length 4K
done
wait $reader
is "a read gives the data or an error" "$(sed 's/: .*//' /tmp/seen | sort -u | xargs)" "Input/output error ok"
