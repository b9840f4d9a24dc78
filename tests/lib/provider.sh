# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that need memory that fails, counted flushes, or a probe that fails:
#
#	# vm: provider
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/provider.sh"
#	provide bad=1M+4K
#
# See pmem_provider.c for the parameters.

# The address of the memory: of the range that memmap= reserves, or without it of the first NVDIMM (ACPI 6.5, section
# 5.2.26.2), whose driver is then not loaded. The tests' machines for arm64, which has no memmap=, get an NVDIMM for it.
case $(cat /proc/cmdline) in
*memmap=*) MEMORY=$((512 << 20)) ;;
*) MEMORY=$(od -An -tu8 -j 72 -N 8 /sys/firmware/acpi/tables/NFIT | tr -d ' ') ;;
esac

# provide PARAMETER=VALUE…: loads the provider with these parameters, and the driver under test. DISK is the name of its
# first disk, empty if there is none; NAMESPACE is the name of its first namespace.
provide() {
	provider_load "$@"
	load_driver
	NAMESPACE=$(first_namespace pmem_provider)
	# shellcheck disable=SC2034 # for the tests
	DISK=$(disk_of "$NAMESPACE") || DISK=
}

provider_load() {
	load_module libnvdimm
	insmod "$PROVIDER" start="$MEMORY" "$@"
	settle
}

# provider NAME: prints a parameter of the provider. provider NAME VALUE: sets it.
provider() {
	case $#:$1 in
	1:flush* | 1:bios | 1:seen | 1:submitting)
		# A number or a letter: without a process, which takes long in a guest.
		read -r provider_value <"/sys/module/pmem_provider/parameters/$1" && printf '%s\n' "$provider_value"
		;;
	1:*) cat "/sys/module/pmem_provider/parameters/$1" ;;
	*) printf '%s\n' "$2" >"/sys/module/pmem_provider/parameters/$1" ;;
	esac
}

# flag_after_fsync BIT FLUSHER: whether a task has this flag (PF_… in linux/sched.h) after an fsync of the disk. With a FLUSHER of 1,
# it may start no I/O (PR_SET_IO_FLUSHER).
flag_after_fsync() {
	python3 - "/dev/$DISK" "$@" <<-END
		import ctypes, os, sys
		bit, flusher = map(int, sys.argv[2:])
		ctypes.CDLL(None).prctl(57, flusher, 0, 0, 0)
		os.fsync(os.open(sys.argv[1], os.O_RDWR))
		print(int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[6]) >> bit & 1)
	END
}

# badblocks_of DEVICE: the bad blocks of a disk (pmem0) or a region (region0) on one line, each as START+LENGTH.
badblocks_of() {
	case $1 in
	region*) badblocks_text=$(cat "$ND/$1/badblocks") || badblocks_text=unreadable ;;
	*) badblocks_text=$(cat "/sys/block/$1/badblocks") || badblocks_text=unreadable ;;
	esac
	badblocks_list=
	# shellcheck disable=SC2086 # words
	set -- $badblocks_text
	while [ $# -gt 1 ]; do
		badblocks_list="$badblocks_list $1+$2"
		shift 2
	done
	badblocks_list="$badblocks_list${1:+ $1}"
	printf '%s\n' "${badblocks_list# }"
}

# read_sectors DISK START [COUNT]: prints sectors, read in one bio that bypasses the page cache.
read_sectors() {
	dd if="/dev/$1" bs="$((512 * ${3:-1}))" count=1 iflag=direct,skip_bytes skip="$((512 * $2))" status=none
}

# write_sectors DISK START COUNT [FLAG,…]: writes standard input in one bio that bypasses the page cache.
write_sectors() {
	dd of="/dev/$1" bs="$((512 * $3))" count=1 oflag="direct,seek_bytes${4:+,$4}" iflag=fullblock seek="$((512 * $2))" \
		conv=notrunc status=none
}

# pattern TEXT COUNT: COUNT sectors filled with a text of 7 letters.
pattern() {
	yes "$1" | head -c "$((512 * $2))"
}

# The info block of an fsdax namespace: struct nd_pfn_sb in drivers/nvdimm/pfn.h, at 4K of the memory.
INFO_BLOCK=$((MEMORY / 4096 + 1))

# info_block_save FILE
info_block_save() {
	dd if=/dev/mem of="$1" bs=4096 skip=$INFO_BLOCK count=1 status=none
}

# info_block_restore FILE [OFFSET HEX]: writes the info block back with these bytes changed. Updates the checksum unless
# the bytes are in it.
info_block_restore() {
	cp "$1" /tmp/info_block
	if [ $# -gt 1 ]; then
		printf %s "$3" | xxd -r -p | dd of=/tmp/info_block bs=1 seek="$2" conv=notrunc status=none
		[ "$2" -ge 4088 ] || info_block_seal /tmp/info_block
	fi
	dd if=/tmp/info_block of=/dev/mem bs=4096 seek=$INFO_BLOCK conv=notrunc status=none
}

# info_block_seal FILE: updates the checksum (fletcher64).
info_block_seal() {
	head -c 8 /dev/zero | dd of="$1" bs=8 seek=511 conv=notrunc status=none
	od -An -v -w4 -tu4 "$1" | {
		low=0 high=0
		while read -r word; do
			low=$(((low + word) & 0xffffffff))
			high=$(((high + low) & 0xffffffff))
		done
		printf '%08x%08x' "$high" "$low"
	} | sed 's/\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)/\8\7\6\5\4\3\2\1/' | xxd -r -p |
		dd of="$1" bs=8 seek=511 conv=notrunc status=none
}

provider_cleanup() {
	if [ -d /sys/module/pmem_provider ]; then
		provider fail ""
		# Pages would stay unmapped for the tests that follow.
		provider unmap ""
	fi
	[ ! -d "/sys/module/$DRIVER" ] || rmmod "$DRIVER"
	[ ! -d /sys/module/pmem_provider ] || rmmod pmem_provider
}

cleanup() {
	umount "$MNT" 2>/dev/null
	provider_cleanup
}
