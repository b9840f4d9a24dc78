#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A range that root writes to a disk's badblocks takes effect at once: reads fail, errors/list has it, a write repairs
# it.
#
# It does not matter whether other errors are listed.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/badblocks.sh"

cleanup() {
	forget_errors "${disk:-}"
	unload_driver
}

# check_takes_effect NAME: 7 subtests.
check_takes_effect() {
	others=$(cat "$list")
	echo '4104 8' >"/sys/block/$disk/badblocks"
	is "$1: a read of it" "$(places "$disk" read --offset 2101248 --stride 0 --count 1)" 'Input/output error: 1'
	is "$1: reads beside it" "$(places "$disk" read --offset 2097152 --stride 8K --count 2)" 'ok: 2'
	is "$1: errors/list has it" "$(grep '^2101248 ' "$list")" '2101248 4096 user'
	check "$1: and so has the region's list" wait_for 60 grep -q '^4104 8$' "$ND/$namespace/../badblocks"
	rebind "$namespace"
	disk=$(disk_of "$namespace")
	is "$1: bound again, a read of it" "$(places "$disk" read --offset 2101248 --stride 0 --count 1)" 'Input/output error: 1'
	is "$1: a write repairs it" "$(places "$disk" rewrite --offset 2101248 --stride 0 --count 1)" 'ok: 1'
	is "$1: the others stay" "$(sorted_ranges "$list" | digest)" "$(printf '%s\n' "$others" | sed '/^$/d' | cut -d ' ' -f 1,2 | sort -n | digest)"
}

[ "$DRIVER" = rust_pmem ] || skip_all "C has no errors/list"
need pmem-io
plan 23
load_driver
namespace=$(e820_ns)
disk=$(disk_of "$namespace")
list=$(errors_list_of "$namespace")
check_takes_effect "nothing is listed"
echo 'add 0 512' >"$list"
check_takes_effect "a sector is listed"
list_every 8388608 65536 300 | edit_list add "$list"
check_takes_effect "hundreds are listed"
echo '8192 8' >"/sys/block/$disk/badblocks"
echo 'drop 4194304 4096' >"$list"
is "dropped, it is on neither list" "$(grep -c '^4194304 ' "$list") $(grep -c '^8192 ' "/sys/block/$disk/badblocks")" '0 0'
is "dropped, it can be read" "$(places "$disk" read --offset 4M --stride 0 --count 1)" 'ok: 1'
