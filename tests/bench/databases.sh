#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Measures the transactions of databases if a flush waits for the host: host flushes per transaction, and transactions
# per second, by the number of clients, under both drivers. PostgreSQL (pgbench, simple-update) and SQLite (WAL,
# synchronous=FULL) are on ext4 with DAX, on virtio-pmem and on memory whose flushes take 10 ms.
#
# `make bench-databases` runs it in a VM with the root of `make suite-apps`.
#
#	databases.sh [SECONDS]
TESTS=$(realpath "$(dirname "$0")/..")
# shellcheck source=tests/lib/test.sh
. "$TESTS/lib/test.sh"
# shellcheck source=tests/lib/fs.sh
. "$TESTS/lib/fs.sh"
# shellcheck source=tests/lib/provider.sh
. "$TESTS/lib/provider.sh"
# shellcheck source=tests/lib/flush-count.sh
. "$TESTS/lib/flush-count.sh"

SECONDS_EACH=${1:-5}
BIN=$(echo /usr/lib/postgresql/*/bin)

cleanup() {
	postgres pg_ctl -D $MNT/postgresql -m immediate stop >/dev/null 2>&1
	umount $MNT 2>/dev/null
	provider_cleanup 2>/dev/null
}

# postgres COMMAND…: a command of PostgreSQL, as its user.
postgres() {
	setpriv --reuid postgres --regid postgres --clear-groups env PATH="$BIN:$PATH" PGHOST=/tmp LANG=C "$@"
}

# host_flushes: the flush requests of the virtio device so far.
host_flushes() {
	virtio_flushes "$VIRTIO"
}

provider_flushes() {
	provider flushes
}

# print_row WHAT CLIENTS FLUSHES TRANSACTIONS
print_row() {
	awk -v driver="$DRIVER" -v what="$1" -v clients="$2" -v flushes="$3" -v n="$4" -v seconds="$SECONDS_EACH" \
		'BEGIN { printf "%-10s %-24s %7d %14.0f %21.3f\n", driver, what, clients, n / seconds, n ? flushes / n : 0 }'
}

# measure_postgresql WHERE COUNTER
measure_postgresql() {
	install -d -o postgres -m 700 $MNT/postgresql
	postgres initdb -D $MNT/postgresql --wal-segsize=4 --no-sync -A trust >/dev/null
	cat >>$MNT/postgresql/postgresql.conf <<-END
		listen_addresses = ''
		unix_socket_directories = '/tmp'
		max_connections = 80
		autovacuum = off
		min_wal_size = 8MB
		max_wal_size = 64MB
		shared_buffers = 32MB
	END
	postgres pg_ctl -D $MNT/postgresql -l /tmp/postgresql.log -w start >/dev/null
	postgres pgbench -i -q -s 1 postgres >/dev/null 2>&1
	for clients in 1 4 16 64; do
		before=$($2)
		# Many rows, so that clients do not wait for each other's: simple-update changes one of 100,000.
		postgres pgbench -n -N -c $clients -j 2 -T "$SECONDS_EACH" postgres >/tmp/pgbench 2>&1
		after=$($2)
		print_row "PostgreSQL, $1" $clients $((after - before)) \
			"$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' /tmp/pgbench)"
	done
	postgres pg_ctl -D $MNT/postgresql -m fast -w stop >/dev/null
}

# measure_sqlite WHERE COUNTER: each client has a database of its own, as in many small services.
measure_sqlite() {
	for clients in 1 4 16 64; do
		for client in $(seq $clients); do
			rm -f "$MNT/$client".db*
			sqlite3 "$MNT/$client.db" 'PRAGMA journal_mode=WAL; CREATE TABLE t (value)' >/dev/null
		done
		before=$($2)
		for client in $(seq $clients); do
			# One transaction for each line, until the time is over.
			yes 'INSERT INTO t VALUES (1);' | timeout "$SECONDS_EACH" sqlite3 -cmd 'PRAGMA synchronous=FULL' "$MNT/$client.db" &
		done 2>/dev/null
		wait
		after=$($2)
		count=0
		for client in $(seq $clients); do
			count=$((count + $(sqlite3 "$MNT/$client.db" 'SELECT count(*) FROM t')))
		done
		print_row "SQLite, $1" $clients $((after - before)) $count
	done
	rm -f "$MNT"/*.db*
}

# measure WHERE DISK COUNTER
measure() {
	make_fs ext4 "$2" >/dev/null
	mount_dax "$2"
	measure_sqlite "$1" "$3"
	measure_postgresql "$1" "$3"
	# The server removes its lock file before it exits.
	wait_for 30 umount $MNT
}

mkdir -p $MNT
modprobe ext4
printf '%-10s %-24s %7s %14s %21s\n' driver where clients transactions/s 'flushes/transaction'
for DRIVER in nd_pmem rust_pmem; do
	load_driver
	VIRTIO=$(basename "$(readlink -f "$ND/$(virtio_ns)/../../..")")
	measure virtio-pmem "$(disk_of "$(virtio_ns)")" host_flushes
	unload_driver
	provide flush_async=1 size=$((384 << 20))
	provider flush_delay 10
	measure "10 ms" "$DISK" provider_flushes
	provider flush_delay 0
	provider_cleanup
	unload_driver 2>/dev/null || :
done
