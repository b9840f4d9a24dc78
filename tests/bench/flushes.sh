#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Measures the cost of durable writes if a flush waits for the host: host flushes per fsync, and fsyncs per second, by
# the number of threads, under both drivers. `make bench-flushes` runs it in a VM.
#
#	flushes.sh [SECONDS]
TESTS=$(realpath "$(dirname "$0")/..")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"
# shellcheck source=tests/lib/provider.sh
. "$TESTS/lib/provider.sh"
# shellcheck source=tests/lib/flush-count.sh
. "$TESTS/lib/flush-count.sh"

SECONDS_EACH=${1:-5}

cleanup() {
	umount $MNT 2>/dev/null
	provider_cleanup 2>/dev/null
}

# host_flushes: the flush requests of the virtio device so far.
host_flushes() {
	virtio_flushes "$VIRTIO"
}

# run_fsyncs FILE THREADS: random writes of 4 KiB, each with an fsync; prints the number of fsyncs, and fsyncs per
# second.
run_fsyncs() {
	fio --name=job --filename="$1" --size=16M --rw=randwrite --bs=4k --ioengine=psync --fsync=1 --thread --numjobs="$2" \
		--group_reporting --time_based --runtime="$SECONDS_EACH" --output-format=json 2>/dev/null |
		jq -r '.jobs[0] | "\(.sync.total_ios // .write.total_ios) \(.write.iops | floor)"'
}

# print_rows WHERE FILE COUNTER: a row for each number of threads.
print_rows() {
	for threads in 1 4 16 64; do
		before=$($3)
		run_fsyncs "$2" $threads >/tmp/fsyncs
		after=$($3)
		read -r count rate </tmp/fsyncs
		printf '%-10s %-22s %7d %9d %14s\n' "$DRIVER" "$1" "$threads" "$rate" \
			"$(awk "BEGIN { printf \"%.3f\", ($after - $before) / ($count + 0.000001) }")"
	done
}

provider_flushes() {
	provider flushes
}

mkdir -p $MNT
modprobe -a ext4 xfs
printf '%-10s %-22s %7s %9s %14s\n' driver where threads fsyncs/s flushes/fsync
for DRIVER in nd_pmem rust_pmem; do
	load_driver
	disk=$(disk_of "$(virtio_ns)")
	VIRTIO=$(basename "$(readlink -f "$ND/$(virtio_ns)/../../..")")
	print_rows "virtio-pmem, raw" "/dev/$disk" host_flushes
	for type in ext4 xfs; do
		make_fs $type "$disk" >/dev/null
		mount_dax "$disk"
		print_rows "virtio-pmem, $type DAX" $MNT/file host_flushes
		umount $MNT
	done
	unload_driver
	provide flush_async=1
	provider flush_delay 10
	print_rows "10 ms, raw" "/dev/$DISK" provider_flushes
	provider flush_delay 0
	provider_cleanup
	unload_driver 2>/dev/null || :
done
