# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# PostgreSQL's regression tests pass with its files on ext4 with DAX.

bin=$(echo /usr/lib/postgresql/*/bin)
file_system ext4
mkdir /mnt/tests
chown postgres /mnt/tests
cd /usr/src/postgresql/src/test/regress || exit
status=0
setpriv --reuid postgres --regid postgres --clear-groups env PATH="$bin:$PATH" LANG=C PGTZ=America/Los_Angeles \
	./pg_regress --bindir="$bin" --dlpath=. --inputdir=. --outputdir=/mnt/tests --temp-instance=/mnt/tests/server \
	--schedule=parallel_schedule --max-concurrent-tests=20 --max-connections=4 --no-locale || status=$?
if [ "$status" != 0 ]; then
	head -n 200 /mnt/tests/regression.diffs || tail -n 50 /mnt/tests/log/*.log
fi
cd /tmp || exit
unmount
exit "$status"
