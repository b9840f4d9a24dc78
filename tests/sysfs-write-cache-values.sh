#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# dax/write_cache is on by default if the platform does not save CPU caches, accepts booleans, and refuses other text.
# vm: --nvdimm size=512M,labels --nvdimm size=32M --e820 32M@512M
. "$(dirname "$0")/lib/test.sh"

# check_accepted TEXT VALUE
check_accepted() {
	check "$1 is taken" sh -c "echo $1 >$file"
	is "$1 means $2" "$(cat "$file")" "$2"
}

# check_refused TEXT VALUE: the value stays.
check_refused() {
	is "$1 is refused" "$(echo "$1" | tee "$file" 2>&1 >/dev/null | grep -o "Invalid argument")" "Invalid argument"
	is "$1 changes nothing" "$(cat "$file")" "$2"
}

plan 19
load_driver
disk=$(labelled_disk -m fsdax -M mem)
file=/sys/block/$disk/dax/write_cache
is "fsdax: at first" "$(cat "$file")" 1
is "plain: at first" "$(cat "/sys/block/$(plain_disk)/dax/write_cache")" 1
is "its mode" "$(stat -c %a "$file")" 644
check_accepted 0 0
check_accepted 1 1
check_accepted off 0
check_accepted y 1
check_refused 2 1
check_refused maybe 1
check_accepted n 0
is "the other disk's is its own" "$(cat "/sys/block/$(plain_disk)/dax/write_cache")" 1
unload_driver
load_driver
is "loaded again, it is as at first" "$(cat "$file")" 1
