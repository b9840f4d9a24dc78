# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that write to memory after a machine check:
#
#	# vm: provider
#	# expect-splat-nd_pmem: BUG: unable to handle page fault
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/write-poisoned.sh"
#	provide size=134217728 nr_regions=4
#	prepare_files touched 0
#	inject_mces touched
#	write_all touched "touched"
#	write_punched touched "touched"
#	report_rows
#
# For each kind of write there is a file with four pages of the letter a, and a partition that covers the same pages. The
# second page becomes bad. The tests write the letter b. No file or partition is used twice, because a writer that the
# kernel kills keeps its locks and its bio.

# shellcheck source=tests/lib/rows.sh
. "$TESTS/lib/rows.sh"
# shellcheck source=tests/lib/provider.sh
. "$TESTS/lib/provider.sh"

KINDS="block:sector block:page block:pages zeroes:sector zeroes:page zeroes:pages file:bytes file:page file:pages mapping:store"

# prepare_files STATE REGION: makes a file system with the files on the namespace of this region. Each state has its
# own.
prepare_files() {
	MNT=/tmp/$1
	STATES="${STATES-} $1"
	eval "disk_$1=$(disk_of "namespace$2.0")"
	eval "disk=\$disk_$1"
	make_fs ext4 "$disk"
	mount_dax "$disk"
	for kind in $KINDS file:punched; do
		# Large enough that ext4 reuses the block that is punched out; for a small file it allocates elsewhere.
		truncate -s 1M "$MNT/$kind"
		write_letters a 16384 "$MNT/$kind" 0
	done
	sync
	for kind in $KINDS file:punched; do
		# Offsets from the start of the provider's memory, and of the disk.
		offset=$(($(pmem-io phys "$MNT/$kind" --offset 4K) - MEMORY))
		first=$((offset - $2 * (32 << 20) - 4096))
		echo "$kind $offset $first"
	done >"/tmp/$1.places"
}

# add_partition DISK NUMBER START LENGTH: adds a partition without a table (BLKPG); START and LENGTH are in bytes.
add_partition() {
	# shellcheck disable=SC2016 # for perl
	perl -e 'my ($disk, @numbers) = @ARGV;
		my $what = pack("qqix132", @numbers[1, 2, 0]);
		open(my $f, "<", $disk) or die "$disk: $!";
		ioctl($f, 0x1269, pack("iiix4P", 1, 0, length $what, $what)) or die "BLKPG: $!"' "$@"
}

# remount STATE: mounts the file system again, so that no mapping has touched the files since.
remount() {
	umount "/tmp/$1" 2>/dev/null || :
	eval "mount -o dax=always /dev/\$disk_$1 /tmp/$1"
}

# inject_mces STATE: injects a machine check for each bad page.
inject_mces() {
	while read -r _ offset _; do
		host mce $((offset + MEMORY)) </dev/null
	done <"/tmp/$1.places"
}

# report_on_bus STATE: the bus reports each bad page, and notifies the driver.
report_on_bus() {
	provider bad "$(awk '{ print $2 "+4K" }' "/tmp/$1.places" | paste -sd ,)"
}

# unmap_pages STATE: unmaps each bad page from the direct map without any report.
unmap_pages() {
	while read -r _ offset _; do
		provider unmap "$offset"
	done <"/tmp/$1.places"
}

# write_all STATE NAME: performs each kind of write but the last, and records the result.
write_all() {
	for kind in $KINDS; do
		write_and_record "$1" "$2" "$kind"
	done
}

# write_punched STATE NAME: performs the last kind of write. Another process keeps the file open: if the killed writer
# closed it last, the close would take a lock that the writer holds, and kill it again with more damage.
write_punched() {
	sleep 1000 <>"/tmp/$1/file:punched" >/dev/null 2>&1 &
	other=$!
	write_and_record "$1" "$2" file:punched
	[ -e /tmp/crashed ] || kill $other
}

# write_and_record STATE NAME KIND
write_and_record() {
	MNT=/tmp/$1
	eval "disk=/dev/\$disk_$1"
	number=$(grep -n "^$3 " "/tmp/$1.places" | cut -d: -f1)
	first=$(sed -n "s/^$3 .* //p" "/tmp/$1.places")
	part=${disk}p$number
	add_partition "$disk" "$number" "$first" 16384
	dmesg -C
	rm -f /tmp/status
	{
		write_status=0
		write_one "$3" </dev/null >/tmp/answer 2>&1 || write_status=$?
		echo $write_status >/tmp/status
	} &
	wait_for 20 write_ended || :
	if kernel_crashed; then
		touch /tmp/crashed
		answer="the kernel crashes in $(dmesg | sed -n 's/.*RIP: 0010:\([a-z_]*\).*/\1/p' | head -n 1)"
	elif [ ! -s /tmp/status ]; then
		answer="hangs"
	elif [ "$(cat /tmp/status)" = 0 ]; then
		answer="ok"
	else
		answer=$(tail -n 1 /tmp/answer | sed 's/.*: //; s/ (os.*//')
	fi
	add_row "$2: $(kind_in_words "$3")" "$answer; the pages then: $(show_pages "$disk" "$first")"
}

write_ended() {
	[ -s /tmp/status ] || kernel_crashed
}

kernel_crashed() {
	dmesg | grep -q 'BUG: unable to handle page fault'
}

# kind_in_words KIND: the row name of that kind.
kind_in_words() {
	case $1 in
	block:sector) echo "block write of a sector" ;;
	block:page) echo "block write of the page" ;;
	block:pages) echo "block write of three pages" ;;
	zeroes:sector) echo "zeroes for a sector" ;;
	zeroes:page) echo "zeroes for the page" ;;
	zeroes:pages) echo "zeroes for three pages" ;;
	file:bytes) echo "100 bytes into the file" ;;
	file:page) echo "the page of the file" ;;
	file:pages) echo "three pages of the file" ;;
	mapping:store) echo "a store through a mapping" ;;
	file:punched) echo "100 bytes into the block, punched out and used again" ;;
	esac
}

# write_one KIND: writes to $part, or to the file.
write_one() {
	case $1 in
	block:sector) write_letters b 512 "$part" 4096 ,direct ;;
	block:page) write_letters b 4096 "$part" 4096 ,direct ;;
	block:pages) write_letters b 12288 "$part" 0 ,direct ;;
	zeroes:sector) zero_range 4096 512 ;;
	zeroes:page) zero_range 4096 4096 ;;
	zeroes:pages) zero_range 0 12288 ;;
	file:bytes) write_letters b 100 "$MNT/$1" 4196 ;;
	file:page) write_letters b 4096 "$MNT/$1" 4096 ;;
	file:pages) write_letters b 12288 "$MNT/$1" 0 ;;
	mapping:store) pmem-io map-write "$MNT/$1" --offset 4K --length 4K --text "$(letter b 4200)" ;;
	file:punched) fallocate -p -o 4096 -l 4096 "$MNT/$1" && write_letters b 100 "$MNT/$1" 4196 ;;
	esac
}

# write_letters LETTER COUNT FILE OFFSET [,FLAG]: writes in one call.
write_letters() {
	letter "$1" "$2" | dd of="$3" bs="$2" count=1 oseek="$4" iflag=fullblock oflag="seek_bytes${5-}" conv=notrunc status=none
}

letter() {
	head -c "$2" /dev/zero | tr '\0' "$1"
}

# zero_range OFFSET LENGTH: BLKZEROOUT.
zero_range() {
	ioctl_output=$(pmem-io ioctl "$part" "BLKZEROOUT=$1,$2")
	echo "$ioctl_output"
	[ "${ioctl_output##*: }" = ok ]
}

# show_pages DISK FIRST: the contents of the four pages from FIRST on: LETTERxCOUNT, or that a page is unreadable.
show_pages() {
	for page in 0 1 2 3; do
		dd if="$1" bs=4096 count=1 iseek=$(($2 + page * 4096)) iflag=direct,skip_bytes of=/tmp/page$page status=none 2>/dev/null ||
			echo unreadable >/tmp/page$page
	done
	perl -0777 -ne 's/((.)\2{3,})/sprintf("%sx%d ", $2 eq "\0" ? "0" : $2, length $1)/gse; y/\n//d; print "[", s/ $//r, "]"' /tmp/page[0-3]
}

need perl pmem-io

# After a writer was killed nothing can be unmounted or unloaded, and the VM is not used again.
cleanup() {
	if [ -e /tmp/crashed ]; then
		# shellcheck disable=SC2317 # tap_end calls it
		tap_leaves_nothing() { :; }
		return
	fi
	for state in $STATES; do
		umount "/tmp/$state"
	done
	# A write maps these pages into the direct map again.
	for disk in /dev/pmem[0-9]; do
		blkdiscard -f -z "$disk"
	done
	provider_cleanup
}
