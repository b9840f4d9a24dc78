#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Invalid writes to badblocks and errors/list are refused with the right errno and change nothing.
# vm: --bare --nvdimm size=64M --e820 64M@512M --virtio-pmem size=64M
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	forget_errors "$disk"
	unload_driver
}

# check_refused FILE ERRNO TEXT…: each text is refused.
check_refused() {
	refused_file=$1
	refused_errno=$2
	shift 2
	for refused_text; do
		is "$(basename "$refused_file"): $(printf %.40s "$refused_text")" \
			"$(env printf '%b' "$refused_text" 2>&1 >"$refused_file" | sed 's/.*: //')" "$refused_errno"
	done
}

need env pmem-io
load_driver
namespace=$(e820_ns)
disk=$(disk_of "$namespace")
list=$ND/$namespace/errors/list
badblocks=/sys/block/$disk/badblocks
echo '64 8' >"$badblocks"
long=$(head -c 5000 /dev/zero | tr '\0' 1)
case $DRIVER in
nd_pmem) plan 6 ;;
*) plan 54 ;;
esac
check_refused "$badblocks" 'Invalid argument' 'add 0 512' '8' '-1 8' '8 0' '8 -8'
is "badblocks is as it was" "$(cat "$badblocks")" '64 8'
if [ "$DRIVER" = rust_pmem ]; then
	# Different origins and lengths, more than one page of text.
	awk 'BEGIN { for (i = 0; i < 300; i++) printf "add %d %d %s\n", 65536 + i * 8192, 512 + i % 8 * 512, i % 2 ? "device" : "restored" }' |
		pmem-io lines "$list"
	before=$(sort -n "$list")
	check_refused "$list" 'Invalid argument' 'add' 'drop' 'add 0' 'drop 0' 'add 0 0' 'drop 512 0' 'add 1 512' 'add 512 511' 'drop 100 512' \
		'add -512 512' 'add 512 -512' 'add 0 512 log' 'add 0 512 injected' 'add 0 512 machine-check' 'add 0 512 firmware' 'add 0 512 nonsense' \
		'add 0 512 user user' 'drop 0 512 user' 'poison 0 4096' 'clear 0 512' 'ADD 0 512' 'add 0x 512' 'add x 512' 'add 0 512K' \
		'add 99999999999999999999 512' 'add 0 18446744073709551616' '\377\376\001\000\004' ' ' "$long" \
		'add 0 512\nadd 512 512' 'drop 65536 512\ndrop 73728 512' 'add 0 512\000' 'drop 65536 512 device' 'add 0 512 poison' 'drop 0 0x'
	check_refused "$list" 'Numerical result out of range' 'add 67108864 512' 'add 67108352 1024' 'drop 67108864 512' 'add 0 67109376' \
		'add 9223372036854775808 512' 'add 512 9223372036854775808' 'add 18446744073709551104 512' \
		'drop 18446744073709551104 1024' 'add 0x8000000000000000 0x8000000000000000'
	is "a second command by the same descriptor" \
		"$({
			env printf 'drop 16384 512'
			env printf 'add 0 512'
		} 2>&1 >"$list" | sed 's/.*: //')" 'Invalid argument'
	is "the exact list is as it was" "$(sort -n "$list" | md5sum)" "$(echo "$before" | md5sum)"
	check "with more than a page of text" test "${#before}" -gt 4096
	check "without inject=1 there is no file in debugfs" test ! -e /sys/kernel/debug/rust_pmem
fi
