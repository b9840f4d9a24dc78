#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A write over bad pages that is interrupted, or fails at one of them, leaves the error or the new data of each page.
#
# The new data is durable before poison is cleared. That a clear-error command does not change the contents is up to the
# platform: this provider's does not. A written page is on no list, an untouched one on every list, that of the platform
# included.
# quick
# vm: provider
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

AT=$((1 << 20))

# words FILE…: the first 8 bytes of each file as a number, as the provider prints them.
words() {
	for file; do
		od -An -tu8 -N8 "$file"
	done | xargs
}

# written_before_clear NAME COMMAND…: the command writes /tmp/new at the provider's address "watch", which is bad.
written_before_clear() {
	name=$1
	shift
	check "$name" "$@"
	is "$name: it was there when poison was cleared" "$(provider cleared)" "$(words /tmp/new)"
	is "$name: and flushed" "$(provider flushed)" "$(words /tmp/new)"
}

# in_ranges OFFSET: prints whether the ranges "OFFSET LENGTH" of standard input cover all of the page, none, or a part.
in_ranges() {
	awk -v at="$1" '
		{
			first = $1 > at ? $1 : at
			last = $1 + $2 < at + 4096 ? $1 + $2 : at + 4096
			if (first < last) n += last - first
		}
		END { print (n >= 4096 ? "all" : n > 0 ? "part" : "none") }'
}

# page_state PAGE: untouched, written (with zeroes, if $zeroes says so), or the inconsistency.
page_state() {
	state_at=$((AT + $1 * 4096))
	state_lists="$(provider bad | tr + ' ' | in_ranges $state_at) $(awk '{ print $1 * 512, $2 * 512 }' "/sys/block/$DISK/badblocks" |
		in_ranges $state_at)"
	case $DRIVER in
	rust_pmem) state_lists="$state_lists $(in_ranges $state_at <"/sys/block/$DISK/device/errors/list")" ;;
	*) state_lists="$state_lists ${state_lists##* }" ;;
	esac
	case $state_lists in
	"all all all") echo untouched ;;
	"none none none")
		if [ -n "$zeroes" ]; then
			set -- cmp -s -n 4096 -i "$state_at:0" "/dev/$DISK" /dev/zero
		else
			set -- pmem-io verify --direct "/dev/$DISK" --offset $state_at --length 4K --seed 2
		fi
		if "$@" >/dev/null 2>&1; then
			echo written
		else
			echo "on no list, and not what was written"
		fi
		;;
	*) echo "on lists of platform, disk, namespace: $state_lists" ;;
	esac
}

# check_consistent NAME PAGE…: each page is untouched or written.
check_consistent() {
	consistent_name=$1
	shift
	for consistent_page; do
		case $(page_state "$consistent_page") in
		untouched | written) ;;
		*) printf 'page %d: %s\n' "$consistent_page" "$(page_state "$consistent_page")" ;;
		esac
	done >/tmp/inconsistent
	is_empty "$consistent_name" cat /tmp/inconsistent
}

# make_bad: makes four pages bad.
make_bad() {
	pmem-io fill --direct "/dev/$DISK" --offset 1M --length 16K --seed 1
	provider bad 1M+16K
}

# test_refused NAME COMMAND…: the command writes over the pages, of which the third cannot be repaired: 4 subtests.
test_refused() {
	refused_name=$1
	shift
	case $1 in
	fallocate) zeroes=1 ;;
	*) zeroes= ;;
	esac
	check_fails "$refused_name: it fails" "$@"
	check_consistent "$refused_name: pages one and two" 0 1
	is "$refused_name: the third is bad" "$(page_state 2)" untouched
	rebind "$NAMESPACE"
	DISK=$(disk_of "$NAMESPACE")
	check_consistent "$refused_name: pages one and two, bound again" 0 1
}

# make_good: removes all errors.
make_good() {
	provider stubborn $((1 << 40))
	provider unmap ""
	pmem-io fill --direct "/dev/$DISK" --offset 1M --length 16K --seed 1
}

need pmem-io
case $DRIVER in
rust_pmem) plan 31 ;;
*) plan 24 ;;
esac
provide pages=1

# ---- interrupted ----

pattern newdata 8 >/tmp/new
pattern olddata 2048 | write_sectors "$DISK" 2048 2048

provider watch $((1 << 20))
provider bad 1M+4K
written_before_clear "a page" dd if=/tmp/new of="/dev/$DISK" bs=4k seek=256 oflag=direct
provider watch $(((1 << 20) + 8192))
provider bad "$(((1 << 20) + 8192))+512"
pattern newsect 8 >/tmp/new
written_before_clear "a sector" dd if=/tmp/new of="/dev/$DISK" bs=512 count=1 seek=2064 oflag=direct
provider watch $(((1 << 20) + 16384))
provider bad "$(((1 << 20) + 16384))+4K"
head -c 4096 /dev/zero >/tmp/new
written_before_clear "zeroes" blkdiscard -f -z -o $(((1 << 20) + 16384)) -l 4K "/dev/$DISK"

# Memory that recovery has unmapped is not touched before its poison is cleared. With the C driver, the write crashes the kernel.
if [ "$DRIVER" = rust_pmem ]; then
	read_sectors "$DISK" 2112 >/tmp/old
	provider bad "$(((1 << 20) + 32768))+4K"
	provider unmap $(((1 << 20) + 32768))
	pattern newdata 8 >/tmp/new
	check "an unmapped page" dd if=/tmp/new of="/dev/$DISK" bs=4k seek=264 oflag=direct
	is "an unmapped page: it was as before when poison was cleared" "$(provider cleared)" "$(words /tmp/old)"
	is_empty "an unmapped page: it is repaired" badblocks_of "$DISK"
fi

# ---- a page that can't be repaired ----

make_bad
provider stubborn $((AT + 8192))
test_refused "not cleared, write" pmem-io pwrite --direct "/dev/$DISK" --offset 1M --length 16K --seed 2
make_good

make_bad
provider stubborn $((AT + 8192))
test_refused "not cleared, zeroes" fallocate -z -o 1M -l 16K "/dev/$DISK"
make_good

# Only a write of the whole page maps it into the direct map again. With the C driver, a write to such a page crashes
# the kernel.
if [ "$DRIVER" = rust_pmem ]; then
	make_bad
	provider unmap $((AT + 8192))
	test_refused "a part of an unmapped page, write" pmem-io pwrite --direct "/dev/$DISK" --offset 1M --length 8704 --seed 2
	make_good
fi

# ---- files ----

mkfs.ext4 -q -F -b 4096 "/dev/$DISK"
mount_dax "$DISK"
fallocate -l 1M $MNT/file
pmem-io fill $MNT/file --seed 1
sync
AT=$(($(pmem-io phys $MNT/file --offset 400K) - MEMORY))
provider watch $AT
provider bad "$AT+4K"
pattern newfile 8 >/tmp/new
written_before_clear "a page of a DAX file" dd if=/tmp/new of=$MNT/file bs=4k seek=100 conv=notrunc

provider stubborn $((AT + 8192))
provider bad "$AT+16K"
# The driver decides how much it writes before it fails.
pmem-io pwrite $MNT/file --offset 400K --length 16K --seed 2 >/tmp/answer 2>&1 || :
sed 's/^/# DAX: /' /tmp/answer
check "not cleared, DAX file: not all of it counts as written" \
	grep -qE '^(0|4096|8192|12288)$|\(os error (5|14)\)$' /tmp/answer
is "not cleared, DAX file: the third page is bad" "$(page_state 2)" untouched
for page in 0 1; do
	at=$((409600 + page * 4096))
	lists="$(provider bad | tr + ' ' | in_ranges $((AT + page * 4096))) $(awk '{ print $1 * 512, $2 * 512 }' "/sys/block/$DISK/badblocks" |
		in_ranges $((AT + page * 4096)))"
	case $lists in
	"all all") ok "not cleared, DAX file: page $page" ;;
	"none none") check "not cleared, DAX file: page $page" pmem-io verify $MNT/file --offset $at --length 4K --seed 2 ;;
	*) is "not cleared, DAX file: page $page" "$lists" "the same" ;;
	esac
done
