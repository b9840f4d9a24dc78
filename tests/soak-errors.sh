#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Machine checks at random addresses cost one page of a file each, are reported and repaired, and outlive a power cut.
#
# After each step, every list of the kernel and of pmemctl is compared with the list of bad pages that the test keeps: badblocks
# of disks and regions, errors/list, reads, writes and mappings of all files, block reads, pmemctl errors and pmemctl monitor. The
# owners of bad pages are compared with debugfs and the reverse map of XFS, and the disks with the memory as the host sees it.
#
# SEED selects the addresses, ERRORS is their number: make soak SEED=7 ERRORS=100
#
# soak
# vm: volatile 2
# timeout: 900
. "$(dirname "$0")/lib/test.sh"

T=/tmp/soak
KEEP=$T/keep/soak           # survives the power cut
BAD=$KEEP/bad               # FS PAGE: the pages that are bad, by their place on the disk
FILES=$KEEP/files           # FS PATH SEED PAGES MAPPERS
EXTENTS=$T/extents          # FS PATH INODE FILE-PAGE DISK-PAGE PAGES
HITS=$T/hits                # FS PAGE BYTE LSB REPAIR, in the order of the machine checks
EVENTS=$T/events
PAGE=4096
: "${SEED:=$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}" "${ERRORS:=12}"

cleanup() {
	umount "$T/mnt/ext4" "$T/mnt/xfs" /var/lib/pmemctl "$T/keep" 2>/dev/null
}

# soak NAME COMMAND…: a subtest whose diagnosis begins with the command that repeats it.
soak() {
	soak_name=$1
	shift
	check "$soak_name" seeded "$@"
}

seeded() {
	seeded_output=$("$@" 2>&1) || {
		printf 'again: make soak SEED=%s ERRORS=%s\n%s\n' "$SEED" "$ERRORS" "$seeded_output"
		return 1
	}
}

# find_disks: sets DISK_ext4, DISK_xfs, and START_… to their physical addresses: the disks of 96 MiB and of 304 MiB.
find_disks() {
	for namespace in $(namespaces virtio-pmem); do
		disk=$(disk_of "$namespace")
		case $(($(cat "$ND/$namespace/size") >> 20)) in
		96) fs=ext4 ;;
		304) fs=xfs ;;
		*) continue ;;
		esac
		eval "DISK_$fs=$disk START_$fs=$(($(cat "$ND/$namespace/resource")))"
	done
}

disk() {
	eval "echo \$DISK_$1"
}

start() {
	eval "echo \$START_$1"
}

pages() {
	echo $(($(cat "/sys/block/$(disk "$1")/size") / 8))
}

# bad FS: its bad pages.
bad() {
	awk -v fs="$1" '$1 == fs { print $2 }' "$BAD" | sort -n
}

# mount_state: the state directory of pmemctl and KEEP are on the NVDIMM.
mount_state() {
	mkdir -p $T/keep $T/mnt/ext4 $T/mnt/xfs /var/lib/pmemctl
	echo 0123456789abcdef0123456789abcdef >/etc/machine-id
	[ "$STAGE" -gt 1 ] || mkfs.ext4 -q -F -b 4096 "/dev/$1" || return
	mount "/dev/$1" $T/keep
	mkdir -p $KEEP $T/keep/pmemctl
	mount --bind $T/keep/pmemctl /var/lib/pmemctl
}

# make_files FS: files of random lengths with known content, of which every other one gets processes that map it, and many of a page.
make_files() {
	folder=$T/mnt/$1 files=$T/files.$1
	awk -v fs="$1" -v folder="$folder" -v seed="$SEED" 'BEGIN {
		srand(seed + length(fs))
		split("1 0 2 0", mappers, " ")
		for (i = 0; i < 12; i++)
			printf "%s %s/f%02d %d %d %d\n", fs, folder, i, 1 + rand() * 1000000, 16 + rand() * 500, mappers[i % 4 + 1]
	}' >"$files"
	cat "$files" >>$FILES
	while read -r _ path seed pages _; do
		fallocate -l $((pages * PAGE)) "$path" && pmem-io fill "$path" --seed "$seed" || return
	done <"$files"
	mkdir "$folder/small"
	fallocate -l $PAGE "$folder/small/1"
	pmem-io fill "$folder/small/1"
	seq 2 400 | (cd "$folder/small" && xargs -n 200 sh -c 'tee "$@" <1 >/dev/null' sh)
	sync -f "$folder"
}

# locate: asks both file systems where their files are.
locate() {
	: >$EXTENTS
	for located in ext4 xfs; do
		sync -f "$T/mnt/$located"
		find "$T/mnt/$located" -type f -exec stat -c '%n %i' {} + >$T/inodes
		find "$T/mnt/$located" -type f -exec filefrag -v -b4096 {} + | awk -v fs="$located" '
			!extents { inode[$1] = $2; next }
			/^File size of / { path = $4; next }
			/^ *[0-9]+:/ { gsub(/[:.]+/, " "); print fs, path, inode[path], $2, $4, $6 }' $T/inodes extents=1 - >>$EXTENTS
	done
	sort -o $EXTENTS $EXTENTS
	test -s $EXTENTS
}

# owners FS: each bad page with its owner by the extents of all files: PAGE PATH INODE OFFSET, or PAGE free.
owners() {
	bad "$1" | awk -v fs="$1" '
		!bad { if ($1 == fs) { n++; name[n] = $2 " " $3; at[n] = $4; from[n] = $5; pages[n] = $6 } next }
		{
			owner = "free"
			for (i = 1; i <= n; i++)
				if ($1 >= from[i] && $1 < from[i] + pages[i]) owner = name[i] " " (at[i] + $1 - from[i]) * 4096
			print $1, owner
		}' $EXTENTS bad=1 -
}

# lost PATH: the pages of a file that are bad.
lost() {
	for lost_fs in ext4 xfs; do
		owners $lost_fs
	done | awk -v path="$1" '$2 == path { print $4 / 4096 }' | sort -n
}

# draw: selects the addresses: pages of mapped files, of other files, and free ones in turn. The file systems' own records are left out.
draw() {
	for fs in ext4 xfs; do
		xfs_io -r -c fsmap "$T/mnt/$fs" | awk -F '[][]' -v fs=$fs '/: free space/ {
			split($2, sector, "[.][.]"); print fs, int((sector[1] + 7) / 8), int((sector[2] + 1) / 8) }'
	done >$T/free
	awk -v seed="$SEED" -v count="$ERRORS" -v ext4="$(pages ext4)" -v xfs="$(pages xfs)" -v files=$FILES -v free=$T/free '
		FILENAME == files { mappers[$2] = $5; next }
		FILENAME == free { f++; free_fs[f] = $1; free_from[f] = $2; free_to[f] = $3; next }
		{ n++; fs[n] = $1; path[n] = $2; from[n] = $5; pages[n] = $6 }
		END {
			srand(seed + 0)
			split("mapped quiet mapped free", wanted, " ")
			split("write repair punch none", repair, " ")
			while (done < count) {
				page = int(rand() * (ext4 + xfs))
				where = page < ext4 ? "ext4" : "xfs"
				if (where == "xfs") page -= ext4
				kind = "records"
				for (i = 1; i <= n; i++)
					if (fs[i] == where && page >= from[i] && page < from[i] + pages[i])
						kind = mappers[path[i]] > 0 ? "mapped" : "quiet"
				for (i = 1; i <= f && kind == "records"; i++)
					if (free_fs[i] == where && page >= free_from[i] && page < free_to[i]) kind = "free"
				if (kind != wanted[done % 4 + 1] || (where " " page) in taken) continue
				taken[where " " page] = 1
				how = kind == "free" ? (++blocks % 2 ? "block" : "none") : repair[++file_pages % 4 + 1]
				lsb = rand() < 0.5 ? 12 : 6
				print where, page, lsb == 12 ? 0 : int(rand() * 64) * 64, lsb, how
				done++
			}
		}' $FILES $T/free $EXTENTS >$HITS
	[ "$(wc -l <$HITS)" = "$ERRORS" ]
}

# start_mappers: the processes that map files, and touch all of them.
start_mappers() {
	echo 1 >/proc/sys/vm/memory_failure_early_kill
	mkfifo $T/go
	: >$T/mappers
	while read -r _ path seed _ count; do
		while [ "$count" -gt 0 ]; do
			count=$((count - 1))
			log=$T/mapper.$(basename "${path%/*}").${path##*/}.$count
			pmem-io map "$path" --read-only --seed "$seed" load run="cat $T/go" sigbus verify >"$log" 2>&1 &
			pid=$!
			wait_for 60 grep -q '^load: ' "$log" || return
			address=$(awk -v path="$path" '$6 == path { sub(/-.*/, "", $1); print $1; exit }' "/proc/$pid/maps")
			echo "$path $pid $((0x$address)) $log" >>$T/mappers
		done
	done <$FILES
}

# sectors FILE: each line "FIRST COUNT" as sectors, one a line.
sectors() {
	awk '{ for (s = $1; s < $1 + $2; s++) print s }' "$1" >$T/sectors || return
	sort -nu $T/sectors
}

# has_sectors FILE: its lines "FIRST COUNT" are the sectors that are expected.
has_sectors() {
	sectors "$1" >$T/seen && cmp -s $T/expected $T/seen
}

# expect_bad FS: expects the sectors of its bad pages.
expect_bad() {
	awk -v fs="$1" '$1 == fs { print $2 * 8, 8 }' "$BAD" >$T/pages || return
	sectors $T/pages >$T/expected
}

# lists_agree: the lists of disks, regions and the driver have the bad pages and nothing else.
lists_agree() {
	for list_fs in ext4 xfs; do
		block=/sys/block/$(disk $list_fs)
		expect_bad $list_fs || return
		has_sectors "$block/badblocks" && has_sectors "$block/device/../badblocks" || return
		awk '{ first = int($1 / 512); print first, int(($1 + $2 + 511) / 512) - first }' "$block/device/errors/list" \
			>$T/listed && has_sectors $T/listed || return
	done
}

await_lists() {
	wait_for 60 lists_agree || {
		echo "the lists are not the bad pages:"
		sort "$BAD"
		for list_fs in ext4 xfs; do
			head -n 99 "/sys/block/$(disk $list_fs)/badblocks" "/sys/block/$(disk $list_fs)/device/errors/list"
		done
		return 1
	}
}

# event FS PAGE: the last complete event of a page: owner, and where which process has the file's first byte.
event() {
	jq -r --arg disk "$(disk "$1")" --argjson at $(($2 * PAGE)) '
		select(.event == "bad" and .disk == $disk and .complete and .disk_offset <= $at and $at < .disk_offset + .length) |
		. as $event | .owner |
		if .kind == "file" then
			"\(.paths | join(",")) \(.inode) \(.file_offset + $at - $event.disk_offset) " +
			([($event.processes // [])[] | .pid as $pid | .addresses[] | "\($pid):\(. - $event.owner.file_offset)"] | sort | join(","))
		else "\(.kind) " end' $EVENTS 2>/dev/null | tail -n 1
}

event_is() {
	[ "$(event "$1" "$2")" = "$3" ]
}

# hit_all: injects the machine checks. After each, the lists agree, pmemctl monitor has reported it within two seconds, and pmemctl
# errors knows the owners of all bad pages.
hit_all() {
	while read -r fs page byte lsb _; do
		host mce $(($(start "$fs") + page * PAGE + byte)) "$lsb" || return
		echo "$fs $page" >>$BAD
		await_lists || return
		owner=$(owners "$fs" | awk -v page="$page" '$1 == page { print $2, $3, $4 }')
		path=${owner%% *}
		mapped=$(awk -v path="$path" '$1 == path { print $2 ":" $3 }' $T/mappers | sort | paste -s -d , -)
		[ "$path" != free ] || owner=free
		wait_for 2 event_is "$fs" "$page" "$owner $mapped" || {
			echo "pmemctl monitor: expected \"$owner $mapped\", seen \"$(event "$fs" "$page")\""
			return 1
		}
		errors_agree "$fs" || return
	done <$HITS
}

# errors_agree FS: pmemctl errors names file, inode and offset of each bad page, with status 1 if there is one.
errors_agree() {
	errors_status=0
	pmemctl errors --json "/dev/$(disk "$1")" >$T/json 2>/dev/null || errors_status=$?
	jq -r '.errors[] | range(0; .length; 4096) as $i | "\((.disk_offset + $i) / 4096) " + (.owner |
		if .kind == "file" then "\(.paths | join(",")) \(.inode) " else "\(.kind)" end) +
		(if .owner.kind == "file" then "\(.owner.file_offset + $i)" else "" end)' $T/json | sort -n >$T/seen
	owners "$1" >$T/expected
	[ -s $T/expected ] && expected_status=1 || expected_status=0
	[ "$errors_status" = "$expected_status" ] && diff $T/expected $T/seen
}

# mapper_agrees PATH LOG: the process was notified of its bad pages, and lost these alone.
mapper_agrees() {
	lost "$1" >$T/lost
	count=$(wc -l <$T/lost)
	pages=$(awk -v path="$1" '$2 == path { print $4 }' $FILES)
	{
		printf 'load: %d pages\nrun: ok\n' "$pages"
		awk '{ printf "page %d code 4 lsb 12 address 0x%x\n", $1, $1 * 4096 }' $T/lost
		if [ "$count" -eq 0 ]; then
			echo "verify: $pages pages"
		else
			echo "verify: $pages pages, $count refused, 0 not the pattern"
		fi
	} >$T/expected
	grep -v '^sigbus: ' "$2" | diff $T/expected - || return
	# Each mapping of 2 MiB gets at least one SIGBUS. The kernel then unmaps it, so later errors may raise none.
	awk -v count="$count" -v least="$(awk '{ print int($1 / 512) }' $T/lost | sort -u | wc -l)" '
		/^sigbus: / { print; good = count == 0 ? /^sigbus: no$/ : $2 >= least && $2 <= count && / code 5 lsb / }
		END { exit !good }' "$2"
}

mappers_agree() {
	: >$T/go
	while read -r path pid _ log; do
		wait_for 60 grep -q '^verify: ' "$log" || { cat "$log"; return 1; }
		wait "$pid" 2>/dev/null || :
		mapper_agrees "$path" "$log" || { echo "in $path"; return 1; }
	done <$T/mappers
}

# ask STATUS OUTPUT COMMAND…: prints a message unless the command ends like that.
ask() {
	ask_expected="$1 $2"
	shift 2
	ask_status=0
	ask_output=$("$@" 2>&1) || ask_status=$?
	[ "$ask_status $ask_output" = "$ask_expected" ] ||
		printf '%s: expected "%s", seen "%s"\n' "$*" "$ask_expected" "$ask_status $ask_output"
}

EIO='pmem-io: Input/output error (os error 5)'
EFAULT='pmem-io: Bad address (os error 14)'

# ask_file PATH SEED PAGES: each way to each of its pages.
ask_file() {
	from=0 refused=
	for page in $(lost "$1") "$3"; do
		at=$((from * PAGE)) length=$(((page - from) * PAGE))
		if [ $length -gt 0 ]; then
			ask 0 $length pmem-io pread "$1" --offset $at --length $length
			ask 0 $length pmem-io pread "$1" --offset $at --length $length --direct
			ask 0 '' pmem-io verify "$1" --seed "$2" --offset $at --length $length
		fi
		if [ "$page" -lt "$3" ]; then
			ask 1 "$EIO" pmem-io pread "$1" --offset $((page * PAGE)) --length $PAGE
			ask 1 "$EFAULT" pmem-io pwrite "$1" --seed "$2" --offset $((page * PAGE + 100)) --length 100
			refused="$refused$(printf 'page %d code 4 lsb 12 address 0x%x' "$page" $((page * PAGE)))
"
		fi
		from=$((page + 1))
	done
	count=$(printf %s "$refused" | grep -c . || :)
	case $count in
	0) ask 0 "verify: $3 pages" pmem-io map "$1" --read-only --seed "$2" verify ;;
	*) ask 3 "${refused}verify: $3 pages, $count refused, 0 not the pattern" pmem-io map "$1" --read-only --seed "$2" verify ;;
	esac
}

# files_agree: reads, writes and mappings of all files fail on bad pages and nowhere else.
files_agree() {
	while read -r _ path seed pages _; do
		ask_file "$path" "$seed" "$pages"
	done <$FILES >$T/wrong
	for fs in ext4 xfs; do
		owners $fs | awk '$2 ~ /\/small\// { print $2 }' >$T/small
		while read -r path; do
			ask_file "$path" 1 1
		done <$T/small >>$T/wrong
		same=$(md5sum $T/mnt/$fs/small/* 2>/dev/null | cut -c -32 | sort | uniq -c | awk '{ print $1 }')
		[ "$same" = $((400 - $(wc -l <$T/small))) ] || echo "$fs: small files: $same are the same" >>$T/wrong
	done
	cat $T/wrong
	[ ! -s $T/wrong ]
}

# blocks_agree: each bad page of the disks can't be read nor written in part; its neighbours can be read.
blocks_agree() {
	# shellcheck disable=SC2094 # grep only reads
	for fs in ext4 xfs; do
		device=/dev/$(disk $fs)
		bad $fs >$T/pages
		while read -r page; do
			at=$((page * PAGE))
			ask 1 "$EIO" pmem-io pread --direct "$device" --offset $at --length $PAGE
			ask 1 "$EIO" pmem-io pwrite --direct "$device" --offset $((at + 512)) --length 512
			if [ "$page" -gt 0 ] && ! grep -qx $((page - 1)) $T/pages; then
				ask 0 $PAGE pmem-io pread --direct "$device" --offset $((at - PAGE)) --length $PAGE
				ask 1 "$EIO" pmem-io pread --direct "$device" --offset $((at - PAGE)) --length $((2 * PAGE))
			fi
			if [ $((page + 1)) -lt "$(pages $fs)" ] && ! grep -qx $((page + 1)) $T/pages; then
				ask 0 $PAGE pmem-io pread --direct "$device" --offset $((at + PAGE)) --length $PAGE
			fi
		done <$T/pages
	done >$T/wrong
	cat $T/wrong
	[ ! -s $T/wrong ]
}

# tools_agree: debugfs and the reverse map of XFS name the same owners.
tools_agree() {
	owners ext4 | awk -v root=$T/mnt/ext4 -v requests=$T/requests '
		BEGIN { printf "" >requests }
		function request(line) { print line >requests; print "debugfs: " line }
		{ request("icheck " $1); print "Block\tInode number" }
		$2 == "free" { print $1 "\t<block not found>"; request("testb " $1); print "Block " $1 " not in use"; next }
		{
			print $1 "\t" $3
			request("bmap <" $3 "> " $4 / 4096); print $1
			request("ncheck " $3); print "Inode\tPathname"; print $3 "\t" substr($2, length(root) + 1)
		}' >$T/expected
	sync -f $T/mnt/ext4
	# In the root, ncheck prints "//name".
	debugfs -f $T/requests "/dev/$(disk ext4)" 2>/dev/null | sed 's,\t//,\t/,' | diff $T/expected - || return
	sync -f $T/mnt/xfs
	xfs_io -r -c fsmap $T/mnt/xfs >$T/map
	bad xfs | awk -F '[][]' '
		!bad { split($2, sector, "[.][.]"); n++; first[n] = sector[1]; last[n] = sector[2]; what[n] = $3; next }
		{
			owner = "unknown"
			for (i = 1; i <= n; i++) if ($1 * 8 >= first[i] && $1 * 8 <= last[i]) {
				split(what[i], word, " ")
				owner = what[i]
				if (word[2] == "free") owner = "free"
				if (word[2] == "inode" && word[4] == "data") {
					split(word[5], offset, "[.][.]")
					owner = word[3] " " (offset[1] + $1 * 8 - first[i]) * 512
				}
			}
			print $1, owner
		}' $T/map bad=1 - >$T/seen
	owners xfs | awk '{ print $1, ($2 == "free" ? $2 : $3 " " $4) }' | diff - $T/seen
}

# memory_agrees FS: block by block, the bad pages are EIO, and all others have the contents that the host sees in the memory.
memory_agrees() {
	fsfreeze -f "$T/mnt/$1" || return
	sum=$(dd if="/dev/$(disk "$1")" bs=4K conv=noerror,sync iflag=direct 2>$T/dd | md5sum)
	# shellcheck disable=SC2046 # page numbers
	host_sum=$(host md5 "$1" $(bad "$1"))
	fsfreeze -u "$T/mnt/$1"
	bad "$1" >$T/expected
	awk '/error reading/ { getline; split($1, records, "+"); print records[1] + records[2] }' $T/dd | sort -nu |
		diff $T/expected - || return
	[ "${sum%% *}" = "$host_sum" ] || {
		echo "MD5 of the disk: ${sum%% *}, of the memory: $host_sum"
		return 1
	}
}

# examine WHEN: 8 subtests.
examine() {
	soak "$1: lists" await_lists
	soak "$1: files and mappings" files_agree
	soak "$1: blocks" blocks_agree
	soak "$1: debugfs and XFS's reverse map" tools_agree
	for examined in ext4 xfs; do
		soak "$1: pmemctl errors on $examined" errors_agree $examined
		soak "$1: $examined and the host's view of the memory" memory_agrees $examined
	done
}

# repaired FS PAGE: it is bad no more.
repaired() {
	sed -i "/^$1 $2\$/d" $BAD
}

# is_free FS PAGE: by the file system's own map of its space.
is_free() {
	xfs_io -r -c fsmap "$T/mnt/$1" | awk -F '[][]' -v sector=$(($2 * 8)) '/: free space/ {
		split($2, range, "[.][.]"); if (sector >= range[1] && sector + 7 <= range[2]) found = 1 } END { exit !found }'
}

# repair_all: repairs the errors in HITS: through the file, by pmemctl repair, by punching a hole and writing it, by a write of the free block.
repair_all() {
	while read -r fs page _ _ how; do
		owner=$(owners "$fs" | awk -v page="$page" '$1 == page { print $2, $4 }')
		path=${owner% *} offset=${owner#* }
		seed=$(awk -v path="$path" '$2 == path { print $3 }' $FILES)
		size=$(stat -c %s "$path" 2>/dev/null || :)
		case $how in
		none) continue ;;
		write) pmem-io fill "$path" --seed "${seed:=1}" --offset "$offset" --length $PAGE || return ;;
		repair)
			rm -f $T/copy
			fallocate -l "$size" $T/copy && pmem-io fill $T/copy --seed "${seed:=1}" || return
			pmemctl repair --from $T/copy --offset "$offset" --length $PAGE "$path" || return
			;;
		punch)
			fallocate -p -o "$offset" -l $PAGE "$path" && sync -f "$path" || return
			pmem-io fill "$path" --seed "${seed:=1}" --offset "$offset" --length $PAGE && locate || return
			;;
		esac
		# After a hole, the file may have another block.
		if is_free "$fs" "$page"; then
			await_lists || return
			set -- --direct "/dev/$(disk "$fs")" --offset $((page * PAGE)) --length $PAGE --seed "$page"
			pmem-io fill "$@" && pmem-io verify "$@" || return
		fi
		repaired "$fs" "$page"
		await_lists || { echo "after $how of page $page of $fs"; return 1; }
	done <$HITS
	locate
}

# saved_agree: pmemctl has saved the bad pages and nothing else.
saved_agree() {
	for fs in ext4 xfs; do
		expect_bad $fs || return
		saved=/var/lib/pmemctl/virtio-pmem-$(printf %x "$(start $fs)").json
		: >$T/listed
		[ ! -e "$saved" ] ||
			jq -r '.list.errors[] | "\(.offset / 512 | floor) \(.length / 512 | ceil)"' "$saved" >$T/listed || return
		has_sectors $T/listed || return
	done
}

[ "$DRIVER" = rust_pmem ] || skip_all "C lists machine checks on memory of the NFIT alone"
need jq filefrag debugfs xfs_io fsfreeze
load_driver
mount_state "$(plain_disk)"
find_disks

case $STAGE in
1)
	plan 29
	# Whatever ends the test, its log says how to repeat it.
	echo "make soak SEED=$SEED ERRORS=$ERRORS" | tee /dev/kmsg | sed 's/^/# /'
	echo "$SEED $ERRORS" >$KEEP/seed
	: >$BAD
	: >$FILES
	check "ext4 is made" make_fs ext4 "$(disk ext4)" -N 2048 -J size=4
	check "XFS is made" make_fs xfs "$(disk xfs)" -m rmapbt=1
	for fs in ext4 xfs; do
		check "$fs: mounted" mount -o dax=always,noatime "/dev/$(disk $fs)" $T/mnt/$fs
		check "$fs: files" make_files $fs
	done
	soak "the files are located" locate
	soak "addresses" draw
	pmemctl errors save --follow --all >$T/follow 2>&1 &
	pmemctl monitor --json >$EVENTS 2>$T/monitor &
	monitor=$!
	soak "pmemctl monitor runs" wait_for 30 grep -q '"watching"' $EVENTS
	start_mappers
	soak "each machine check is listed and reported with its file and processes" hit_all
	kill "$monitor"
	soak "mappings lose the bad pages and no other" mappers_agree
	examine "with errors"
	soak "repairs" repair_all
	examine "repaired"
	soak "what is left is saved" wait_for 60 saved_agree
	cp $EXTENTS $KEEP/extents
	sync
	host powercut
	;;
2)
	read -r SEED ERRORS <$KEEP/seed
	plan 19
	kept=$BAD
	BAD=/dev/null
	soak "after the power cut nothing is listed" await_lists
	BAD=$kept
	check "pmemctl errors restore" pmemctl errors restore --all
	soak "what was left is listed" await_lists
	check "ext4: journal" sh -c "e2fsck -p /dev/$(disk ext4) || [ \$? -eq 1 ]"
	for fs in ext4 xfs; do
		check "$fs: mounted" mount -o dax=always,noatime "/dev/$(disk $fs)" $T/mnt/$fs
	done
	soak "the files are located" locate
	check "where they were" cmp $EXTENTS $KEEP/extents
	examine "after the power cut"
	check "unmounted" umount $T/mnt/ext4 $T/mnt/xfs
	check "ext4: no fault" e2fsck -fn "/dev/$(disk ext4)"
	check "XFS: no fault" xfs_repair -n "/dev/$(disk xfs)"
	;;
esac
