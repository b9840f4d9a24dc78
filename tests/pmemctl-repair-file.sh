#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl repair restores exactly the bad parts of a file from a backup, or zeroes them.
#
# On ext4 and XFS, with DAX and without, in the middle of a file and in its last page.
# vm: files
# timeout: 400
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"

cleanup() {
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	unload_driver
}

# run_repair [ARGUMENT…]: the exit status, and the result of each piece. The pages that are listed here can be read.
run_repair() {
	repair_status=0
	pmemctl repair --trust-list --json "$@" >/tmp/repair.json 2>/tmp/repair.err || repair_status=$?
	echo "$repair_status $(jq -r '"\([.pieces[] | "\(.file_offset)+\(.length) \(.replaced) \(.kept) \(.result)"] | join(", ")) lost \(.lost)"' /tmp/repair.json)"
}

# list_badblocks: on one line.
list_badblocks() {
	tr '\n' , <"/sys/block/$disk/badblocks"
}

# drop_cache: of the file, where it has one. To drop all of the guest would slow down each program that is started then.
drop_cache() {
	case $way in
	*never) dd of="$file" oflag=nocache conv=notrunc,fdatasync count=0 status=none ;;
	esac
}

# make_bad OFFSET COUNT: makes sectors of the file bad, and drops its page cache.
make_bad() {
	drop_cache
	echo "$(sector_of "$file" "$1") $2" >"/sys/block/$disk/badblocks"
}

need filefrag jq cmp
plan 81
load_driver
disk=$(e820_disk)

for way in 'ext4 always' 'ext4 never' 'xfs always' 'xfs never'; do
	type=${way% *}
	make_fs "$type" "$disk"
	mkdir -p "$MNT"
	mount -o "dax=${way#* }" "/dev/$disk" "$MNT"
	file=$MNT/file
	# The file ends within its last page.
	dd if=/dev/urandom of=/tmp/right bs=1000 count=1001 status=none
	cp /tmp/right "$file"
	cp --reflink=never "$file" "$MNT/neighbour"
	sync
	cp /tmp/right /tmp/backup

	is "$way: nothing is bad" "$(run_repair "$file" --from /tmp/backup)" "0  lost 0"
	# A page, two sectors of another page, and the last page.
	make_bad 40960 8
	make_bad 82432 1
	make_bad 83456 1
	make_bad 999424 8
	before=$(list_badblocks)
	if [ "$way" = 'ext4 always' ]; then
		pmemctl repair --trust-list --dry-run "$file" --from /tmp/backup 2>&1 | sed 's/^/# /'
	fi
	plan='40960+4096 4096 0 planned, 81920+4096 1024 3072 planned, 999424+4096 1576 0 planned'
	is "$way: what would be done" "$(run_repair --dry-run "$file" --from /tmp/backup)" "0 $plan lost 0"
	is "$way: was not" "$(list_badblocks)" "$before"
	is "$way: what would be lost" "$(run_repair --dry-run "$file" --zero)" "0 $plan lost 6696"
	done=$(echo "$plan" | sed 's/planned/repaired/g')
	is "$way: repaired" "$(run_repair "$file" --from /tmp/backup)" "0 $done lost 0"
	sed 's/^/# /' /tmp/repair.err
	[ "$way" != 'ext4 always' ] || check_schema repair /tmp/repair.json
	is_empty "$way: nothing is listed" list_badblocks
	check "$way: the file is right" cmp "$file" /tmp/right
	check "$way: so is its neighbour" cmp "$MNT/neighbour" /tmp/right
	umount "$MNT"
	mount -o "dax=${way#* }" "/dev/$disk" "$MNT"
	check "$way: still so" cmp "$file" /tmp/right

	# The backup is older in places where the memory is good.
	cp /tmp/right /tmp/backup
	dd if=/dev/zero of=/tmp/backup bs=4096 seek=21 count=1 conv=notrunc status=none
	make_bad 81920 8
	is "$way: a backup of another version is refused" "$(run_repair "$file" --from /tmp/backup)" "1 "
	is "$way: only what is bad" "$(run_repair "$file" --from /tmp/backup --force)" "0 81920+4096 4096 0 repaired lost 0"
	check "$way: comes from the backup" cmp "$file" /tmp/right

	make_bad 82432 1
	is "$way: zeroes" "$(run_repair "$file" --zero)" "0 81920+4096 512 3584 repaired lost 512"
	dd if=/dev/zero of=/tmp/right bs=512 seek=161 count=1 conv=notrunc status=none
	check "$way: are there, and the rest of the page" cmp "$file" /tmp/right
	case $way in
	*never) kept=repaired ;;
	*) kept=good-after-all ;;
	esac
	is "$way: a range that can be read is kept" "$(run_repair "$file" --from /tmp/backup --force --offset 82000 --length 600)" "0 81920+4096 0 4096 $kept lost 0"
	check "$way: unchanged" cmp "$file" /tmp/right
	is "$way: a range, bad or not" "$(run_repair "$file" --from /tmp/backup --force --overwrite-good --offset 82000 --length 600)" "0 81920+4096 600 3496 repaired lost 0"
	dd if=/tmp/backup of=/tmp/right bs=1 skip=82000 seek=82000 count=600 conv=notrunc status=none
	check "$way: is that of the backup" cmp "$file" /tmp/right
	if [ "$way" = 'ext4 never' ] || [ "$way" = 'xfs never' ]; then
		cat "$file" >/dev/null
		echo "$(sector_of "$file" 40960) 8" >"/sys/block/$disk/badblocks"
		is "$way: what the page cache has is not lost" "$(run_repair "$file" --zero)" "0 40960+4096 0 4096 repaired lost 0"
		# The page cache has the first of two adjacent pages: a write of a whole page reads no other one.
		drop_cache
		dd if=/tmp/right of="$file" bs=4096 skip=10 seek=10 count=1 conv=notrunc,fsync status=none
		echo "$(sector_of "$file" 40960) 16" >"/sys/block/$disk/badblocks"
		is "$way: nor if a page beside it is" "$(run_repair "$file" --zero)" "0 40960+8192 4096 4096 repaired lost 4096"
		dd if=/dev/zero of=/tmp/right bs=4096 seek=11 count=1 conv=notrunc status=none
		check "$way: only that one is zeroed" cmp "$file" /tmp/right
	else
		fallocate -o 2M -l 64K "$MNT/file"
		truncate -s 2125824 /tmp/right
		sync
		make_bad 2101248 8
		is "$way: what was never written is zeros" "$(run_repair "$file" --zero)" "0 2101248+4096 0 4096 repaired lost 0"
	fi
	umount "$MNT"
done
