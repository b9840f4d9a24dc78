# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For tests of what is listed as bad, and of what is not:
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/badblocks.sh"
#	every 0 128K 500 | listed_by add "$LIST"

PAGE=4096

# list_of NAMESPACE: the file that has its errors, in any mode.
list_of() {
	printf '%s/device/errors/list\n' "/sys/block/$(disk_of "$1")"
}

# every FIRST STRIDE COUNT [LENGTH]: a line "OFFSET LENGTH" for each; LENGTH is a page otherwise.
every() {
	awk -v first="$1" -v stride="$2" -v count="$3" -v length_="${4:-$PAGE}" \
		'BEGIN { for (i = 0; i < count; i++) printf "%.0f %d\n", first + i * stride, length_ }'
}

# listed_by add|drop FILE [ORIGIN]: each line of the input is added to a list of errors, or dropped.
listed_by() {
	sed "s/^/$1 /${3:+; s/\$/ $3/}" | pmem-io lines "$2"
}

# ranges FILE: the lines of a list of errors without their origins, in order.
ranges() {
	cut -d ' ' -f 1,2 "$1" | sort -n
}

# digest: of the input, with how many lines it has, so that two long lists can be compared in a line.
digest() {
	awk '{ print } END { print NR, "lines" >"/tmp/digest" }' | md5sum | cut -c 1-12
	cat /tmp/digest
}

# places DISK ARGUMENTS OF pmem-io places: direct I/O of pages.
places() {
	places_disk=$1
	shift
	pmem-io places "/dev/$places_disk" --direct "$@" 2>&1
}

# not_bad DISK LIST: how many sectors the disk's badblocks has that the list of a raw namespace has not, and the first of them.
not_bad() {
	awk -v list="$2" '
		BEGIN {
			while ((getline line <list) > 0) {
				split(line, word, " ")
				for (s = word[1] / 512; s < (word[1] + word[2]) / 512; s++) bad[s] = 1
			}
		}
		{ for (s = $1; s < $1 + $2; s++) if (!(s in bad) && !n++) first = s }
		END { if (n) printf "%d sectors, first %d\n", n, first }' "/sys/block/$1/badblocks"
}

# load_injecting: the driver under test, so that root can poison memory; POISON is the folder of the files for that.
load_injecting() {
	mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
	load_driver
	unload_driver
	insmod "$MODULE" inject=1
	settle
	# shellcheck disable=SC2034 # for the tests
	POISON=/sys/kernel/debug/rust_pmem
}
