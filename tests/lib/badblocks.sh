# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests of bad blocks and of their neighbours:
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/badblocks.sh"
#	list_every 0 128K 500 | edit_list add "$LIST"

PAGE=4096

# errors_list_of NAMESPACE: the path of its errors/list, in any mode.
errors_list_of() {
	printf '%s/device/errors/list\n' "/sys/block/$(disk_of "$1")"
}

# machine_check_origin: what errors/list names the origin of an error that `host mce` injects.
machine_check_origin() {
	case $(uname -m) in
	x86_64) echo machine-check ;;
	*) echo firmware ;;
	esac
}

# list_every FIRST STRIDE COUNT [LENGTH]: prints a line "OFFSET LENGTH" for each range; LENGTH is a page by default.
list_every() {
	awk -v first="$1" -v stride="$2" -v count="$3" -v length_="${4:-$PAGE}" \
		'BEGIN { for (i = 0; i < count; i++) printf "%.0f %d\n", first + i * stride, length_ }'
}

# edit_list add|drop FILE [ORIGIN]: adds each range of standard input to an errors/list, or drops it.
edit_list() {
	sed "s/^/$1 /${3:+; s/\$/ $3/}" | pmem-io lines "$2"
}

# sorted_ranges FILE: the ranges of an errors/list in order, without their origins.
sorted_ranges() {
	cut -d ' ' -f 1,2 "$1" | sort -n
}

# digest: a checksum and a line count of standard input, to compare two long lists in one line.
digest() {
	awk '{ print } END { print NR, "lines" >"/tmp/digest" }' | md5sum | cut -c 1-12
	cat /tmp/digest
}

# places DISK ARGUMENTS OF pmem-io places: does direct I/O to pages of a disk.
places() {
	places_disk=$1
	shift
	pmem-io places "/dev/$places_disk" --direct "$@" 2>&1
}

# only_io_errors FILE…: some of these results of pmem-io places are successes, all others I/O errors.
only_io_errors() {
	grep -q '^ok: ' "$@" && ! sed 's/:.*//' "$@" | grep -vxE 'ok|Input/output error'
}

# extra_badblocks DISK LIST: counts the sectors of the disk's badblocks that are not in errors/list of a raw namespace,
# and prints the first.
extra_badblocks() {
	awk -v list="$2" '
		BEGIN {
			while ((status = (getline line <list)) > 0) {
				split(line, word, " ")
				for (s = word[1] / 512; s < (word[1] + word[2]) / 512; s++) bad[s] = 1
			}
			if (status < 0) print list " can not be read"
		}
		{ for (s = $1; s < $1 + $2; s++) if (!(s in bad) && !n++) first = s }
		END { if (n) printf "%d sectors, first %d\n", n, first }' "/sys/block/$1/badblocks"
}

# fills_page FILE: the file has as many ranges as a page of text holds.
fills_page() {
	[ "$(wc -l <"$1")" -ge 300 ] && [ "$(wc -c <"$1")" -le 4096 ]
}

# load_with_inject: loads the driver under test so that root can poison memory. POISON is the debugfs folder with the
# commands.
load_with_inject() {
	mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
	load_driver
	unload_driver
	insmod "$MODULE" inject=1
	settle
	# shellcheck disable=SC2034 # for the tests
	POISON=/sys/kernel/debug/rust_pmem
}
