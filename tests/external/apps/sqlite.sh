# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# After its writers are killed, a SQLite database on DAX is consistent and has each row that was reported as committed.
#
# It uses a write-ahead log, whose shared memory is a mapped DAX file.

# writer.sh ROW FILE: commits every second row after ROW, and reports it in FILE.
cat >writer.sh <<'END'
row=$1
while :; do
	row=$((row + 2))
	echo "BEGIN IMMEDIATE; INSERT INTO ledger VALUES($row, hex(randomblob(500))); COMMIT; SELECT $row;"
done | sqlite3 -batch -cmd '.timeout 10000' -cmd 'PRAGMA synchronous=FULL' /mnt/db >>"$2"
END
# count_rows WRITER: the number of its rows, up to the last one that it reported.
count_rows() {
	sqlite3 /mnt/db "SELECT count(*) FROM ledger WHERE row % 2 = $1 AND row <= $(tail -n 1 "committed.$1")"
}

for type in ext4 xfs; do
	file_system "$type"
	sqlite3 /mnt/db 'PRAGMA journal_mode=WAL; CREATE TABLE ledger(row INTEGER PRIMARY KEY, text)'
	printf '0\n' >committed.0
	printf '1\n' >committed.1
	sqlite3 /mnt/db "INSERT INTO ledger VALUES(0, ''), (1, '')"
	for round in 1 2 3 4 5 6 7 8; do
		# Two writers, each in its own process group.
		groups=
		for writer in 0 1; do
			last=$(sqlite3 /mnt/db "SELECT max(row) FROM ledger WHERE row % 2 = $writer")
			setsid sh writer.sh "$last" "committed.$writer" &
			groups="$groups -$!"
		done
		sleep "2.$round"
		# shellcheck disable=SC2086 # two of them
		kill -KILL $groups
		wait || true
		[ "$(sqlite3 /mnt/db 'PRAGMA integrity_check')" = ok ]
		for writer in 0 1; do
			# A line that was cut off by the kill is not a report.
			[ -z "$(tail -c 1 "committed.$writer")" ] || sed -i '$d' "committed.$writer"
			echo "round $round, writer $writer: $(wc -l <"committed.$writer") reported, $(count_rows "$writer") found"
			[ "$(count_rows "$writer")" -ge "$(wc -l <"committed.$writer")" ]
		done
	done
	[ "$(wc -l <committed.0)" -gt 8 ]
	unmount
done
