#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A write over several bad pages of which one can't be repaired fails: each of the others is either written and on no list, or untouched and on every list, the platform's as well.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

AT=$((1 << 20))

cleanup() {
	umount /mnt 2>/dev/null
	provider unmap ""
	provider_cleanup
}

# in_ranges OFFSET: whether a page is among the ranges "OFFSET LENGTH" of the input, in whole, not at all, or in part.
in_ranges() {
	awk -v at="$1" '
		{
			first = $1 > at ? $1 : at
			last = $1 + $2 < at + 4096 ? $1 + $2 : at + 4096
			if (first < last) n += last - first
		}
		END { print (n >= 4096 ? "all" : n > 0 ? "part" : "none") }'
}

# state PAGE: what became of it.
state() {
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
		if pmem-io verify --direct "/dev/$DISK" --offset $state_at --length 4K --seed 2 >/dev/null 2>&1 ||
			[ "$(read_sectors "$DISK" $((state_at / 512)) 8 | tr -d '\0' | wc -c)" = 0 ]; then
			echo written
		else
			echo "on no list, and not what was written"
		fi
		;;
	*) echo "on lists of platform, disk, namespace: $state_lists" ;;
	esac
}

# consistent NAME PAGE…: each of them is.
consistent() {
	consistent_name=$1
	shift
	for consistent_page; do
		case $(state "$consistent_page") in
		untouched | written) ;;
		*) printf 'page %d: %s\n' "$consistent_page" "$(state "$consistent_page")" ;;
		esac
	done >/tmp/inconsistent
	is "$consistent_name" "$(cat /tmp/inconsistent)" ''
}

# bad: four pages are.
bad() {
	pmem-io fill --direct "/dev/$DISK" --offset 1M --length 16K --seed 1
	provider bad 1M+16K
}

# refuses NAME COMMAND…: what writes over the pages, of which the third refuses: 4 subtests.
refuses() {
	refuses_name=$1
	shift
	check_fails "$refuses_name: it fails" "$@"
	consistent "$refuses_name: pages one and two" 0 1
	is "$refuses_name: the third is bad" "$(state 2)" untouched
	rebind "$NAMESPACE"
	DISK=$(disk_of "$NAMESPACE")
	consistent "$refuses_name: pages one and two, bound again" 0 1
}

# good: all of it can be written again.
good() {
	provider stubborn $((1 << 40))
	provider unmap ""
	pmem-io fill --direct "/dev/$DISK" --offset 1M --length 16K --seed 1
}

need pmem-io
case $DRIVER in
rust_pmem) plan 15 ;;
*) plan 11 ;;
esac
provide pages=1

bad
provider stubborn $((AT + 8192))
refuses "not cleared, write" pmem-io pwrite --direct "/dev/$DISK" --offset 1M --length 16K --seed 2
good

bad
provider stubborn $((AT + 8192))
refuses "not cleared, zeroes" fallocate -z -o 1M -l 16K "/dev/$DISK"
good

# Only a whole page comes back into the kernel's map. With C a write to such a page crashes the kernel.
if [ "$DRIVER" = rust_pmem ]; then
	bad
	provider unmap $((AT + 8192))
	refuses "a part of an unmapped page, write" pmem-io pwrite --direct "/dev/$DISK" --offset 1M --length 8704 --seed 2
	good
fi

mkfs.ext4 -q -F -b 4096 "/dev/$DISK"
mount -o dax=always "/dev/$DISK" /mnt
fallocate -l 1M /mnt/file
pmem-io fill /mnt/file --seed 1
sync
AT=$(($(pmem-io phys /mnt/file --offset 400K) - (512 << 20)))
provider stubborn $((AT + 8192))
provider bad "$AT+16K"
# How much of it is written before is up to the driver.
pmem-io pwrite /mnt/file --offset 400K --length 16K --seed 2 >/tmp/answer 2>&1 || :
sed 's/^/# DAX: /' /tmp/answer
is "not cleared, DAX file: the third page is bad" "$(state 2)" untouched
for page in 0 1; do
	at=$((409600 + page * 4096))
	lists="$(provider bad | tr + ' ' | in_ranges $((AT + page * 4096))) $(awk '{ print $1 * 512, $2 * 512 }' "/sys/block/$DISK/badblocks" |
		in_ranges $((AT + page * 4096)))"
	case $lists in
	"all all") ok "not cleared, DAX file: page $page" ;;
	"none none") check "not cleared, DAX file: page $page" pmem-io verify /mnt/file --offset $at --length 4K --seed 2 ;;
	*) is "not cleared, DAX file: page $page" "$lists" "the same" ;;
	esac
done
