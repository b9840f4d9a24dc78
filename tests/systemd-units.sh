#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# With the udev rule and the systemd units installed, saved errors are restored before a file system is mounted.
#
# With a real systemd. New errors are logged to the journal, passed to a hook, and saved; services can be stopped and
# started again.
# vm: three
# timeout: 600
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/save-restore.sh"

UNITS=/etc/systemd/system

cleanup() {
	# Its child ends with it.
	if [ -n "${UNSHARE:-}" ]; then
		kill -KILL "$UNSHARE"
	fi
	wait
	# shellcheck disable=SC2154 # tests/lib/tap.sh sets it
	if [ "$tap_status" -ne 0 ] || [ "$TAP_FAILED" -ne 0 ]; then
		sed 's/^/# /' /tmp/systemd
		jq -r '"# \(.SYSLOG_IDENTIFIER): \(.MESSAGE)"' /tmp/journal.before /tmp/journal
	fi
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	wipefs -aq "/dev/$disk"
	remove_machine
	# udev loads nd_pmem.
	unload_both_drivers
	enable_regions
}

# ---- a machine with systemd ----

# What systemd changes itself.
CORE_PATTERN=/proc/sys/kernel/core_pattern DEVKMSG=/proc/sys/kernel/printk_devkmsg

# install_machine: turns the guest's root into an installation with few units, none of which needs hardware.
install_machine() {
	hostname=$(hostname) core_pattern=$(cat $CORE_PATTERN) devkmsg=$(cat $DEVKMSG)
	rm -rf $STATE /var/tmp/state /tmp/etc
	mkdir /tmp/etc
	cp -a /etc/systemd /etc/fstab /tmp/etc
	install -d $UNITS/systemd-udev-trigger.service.d /etc/systemd/system-generators /etc/systemd/journald.conf.d
	set -- $UNITS/systemd-remount-fs.service $UNITS/systemd-udev-load-credentials.service
	for unit in /usr/lib/systemd/system/*.wants/* "$UNITS"/*.wants/*; do
		case ${unit##*/} in
		'*' | systemd-journald* | systemd-udev-trigger.service | systemd-udevd*) ;;
		*) set -- "$@" "$UNITS/${unit##*/}" ;;
		esac
	done
	for generator in /usr/lib/systemd/system-generators/*; do
		case $generator in
		*/systemd-fstab-generator) ;;
		*) set -- "$@" "/etc${generator#/usr/lib}" ;;
		esac
	done
	# shellcheck disable=SC2016 # for perl: ln would be a process for each
	perl -e 'for (@ARGV) { unlink; symlink "/dev/null", $_ or die "$_: $!\n" }' "$@"
	printf '[Journal]\nStorage=volatile\nReadKMsg=no\nRateLimitBurst=0\n' >/etc/systemd/journald.conf.d/test.conf
	printf '[Unit]\nDefaultDependencies=no\nRequires=shutdown.target umount.target\nAfter=shutdown.target umount.target\n' >$UNITS/off.target
	printf '[Service]\nExecStart=\nExecStart=udevadm trigger --type=all --action=add --subsystem-match=block --subsystem-match=nd\n' \
		>$UNITS/systemd-udev-trigger.service.d/test.conf
	echo 0123456789abcdef0123456789abcdef >/etc/machine-id
	install "$(command -v pmem-io)" /usr/local/bin/pmem-io
	# A mount helper for ext4 that records badblocks at the time of the mount.
	cat >/sbin/mount.ext4 <<-END
		#!/bin/sh
		cat /sys/block/$disk/badblocks >/tmp/mounted
		exec mount -i -t ext4 "\$@"
	END
	chmod 755 /sbin/mount.ext4
}

# remove_machine: leaves the guest's root as it was. Its files are removed, and those that it had before are there again.
remove_machine() {
	[ -d /tmp/etc ] || return 0
	rm -rf /etc/systemd
	mv /tmp/etc/systemd /etc/systemd
	mv /tmp/etc/fstab /etc/fstab
	rm -rf /tmp/etc /sbin/mount.ext4 /usr/local/bin/pmem-io /usr/local/bin/group-of-mail /usr/sbin/pmemctl \
		/usr/lib/systemd/system/pmemctl-* /usr/lib/udev/rules.d/59-pmemctl.rules /etc/pmemctl /var/lib/pmem-hook \
		/var/tmp/hook-job.* /var/tmp/state $STATE /dev/shm/hook
	hostname "$hostname"
	echo "$core_pattern" >$CORE_PATTERN
	echo "$devkmsg" >$DEVKMSG
}

# leave_one_region REGION: disables all others, whose disks the services would watch.
leave_one_region() {
	for other_region in "$ND"/region*; do
		if [ "${other_region##*/}" != "$1" ] && [ -e "$other_region/driver" ]; then
			echo "${other_region##*/}" >/sys/bus/nd/drivers/nd_region/unbind
		fi
	done
}

# boot: starts systemd as process 1 of new namespaces; returns when the boot has finished.
boot() {
	rm -f /tmp/mounted
	: >/tmp/journal
	: >/tmp/journal.lines
	state=
	# An empty `container` means that this is not a container: the devices are those of the machine.
	# shellcheck disable=SC2016 # for the shell inside
	container='' SYSTEMD_PROC_CMDLINE='systemd.unit=multi-user.target systemd.show_status=0 systemd.log_target=journal' \
		unshare --pid --fork --mount --mount-proc --kill-child sh -c '
			# The shutdown would unmount the checkout, which is in use.
			cd /
			umount -l "$1" /run
			mount -t tmpfs -o mode=755 run /run
			mount -t cgroup2 cgroup2 /sys/fs/cgroup
			mount --bind /dev/null /dev/console
			exec /usr/lib/systemd/systemd' sh "$CHECKOUT" </dev/null >/tmp/systemd 2>&1 &
	UNSHARE=$!
	wait_for 60 first_process
	wait_for 60 test -S "/proc/$SYSTEMD/root/run/systemd/private" || :
	if ! wait_for 1 has_booted; then
		echo "# systemd: $state"
		return 1
	fi
	# Each line of the first file is in it before jq gets it.
	rm -f /tmp/journal.pipe
	mkfifo /tmp/journal.pipe
	jq --unbuffered -r '"\(._SYSTEMD_UNIT) <\(.PRIORITY)>\(.MESSAGE)"' </tmp/journal.pipe >/tmp/journal.lines &
	inside journalctl -q -f -n all -o json | tee /tmp/journal.pipe >/tmp/journal &
}

first_process() {
	SYSTEMD=$(pgrep -P "$UNSHARE")
}

# has_booted: waits for that: to ask again and again would take the only processor from the boot.
has_booted() {
	state=$(inside timeout 60 systemctl is-system-running --wait 2>&1) || [ "$state" = degraded ]
}

# inside COMMAND…: runs the command in that machine.
inside() {
	nsenter -t "$SYSTEMD" -p -m "$@"
}

# shut_down NAME: 1 subtest: nothing has failed since the boot. Stops all units but not systemd itself, which would
# unmount by force and make the guest's own root read-only.
shut_down() {
	inside systemctl start off.target
	is_empty "$1: nothing has failed" list_failures
	kill -KILL "$SYSTEMD"
	wait 2>/dev/null || :
	UNSHARE=
	cat /tmp/journal >>/tmp/journal.before
}

# list_failures: failed units, and ordering cycles.
list_failures() {
	inside systemctl --failed --no-legend --plain
	inside journalctl -q -o cat _PID=1 >/tmp/journal.systemd
	[ -s /tmp/journal.systemd ]
	grep -iE 'ordering cycle|failed' /tmp/journal.systemd || :
}

# clear_kernel_lists: the kernel forgets the errors, as after a reboot; prints the rest of badblocks.
clear_kernel_lists() {
	forget_errors "$disk"
	rebind "$(e820_ns)"
	disk=$(e820_disk)
	cat "/sys/block/$disk/badblocks"
}

# ---- the test ----

SERVICES='pmemctl-restore.service pmemctl-save.service pmemctl-monitor.service'

# journal SERVICE: its messages, each with its priority.
journal() {
	sed -n "s/^$1\.service //p" /tmp/journal.lines
}

# logs SERVICE REGEX: the service logs a matching message in time.
logs() {
	wait_for 60 has_logged "$@" || {
		journal "$1"
		return 1
	}
}

has_logged() {
	journal "$1" | grep -q "$2"
}

# watch_count TIMES: the monitor has started so many times.
watch_count() {
	[ "$(journal pmemctl-monitor | grep -c '^<6>watching')" -ge "$1" ]
}

# field_of_error OFFSET EXPRESSION: fields of the journal entry for the error at this offset of the disk.
field_of_error() {
	jq -r "select(.PMEM_OFFSET == \"$1\") | $2" /tmp/journal | tail -n 1
}

# states PROPERTY…: these properties of each service.
states() {
	# shellcheck disable=SC2086 # each
	inside systemctl show -p "$(echo "$*" | tr ' ' ,)" $SERVICES | awk -F = -v wanted="$*" '
		function show(i) {
			for (i = 1; i <= count; i++)
				print value[names[i]]
		}
		BEGIN { count = split(wanted, names, " ") }
		NF { value[$1] = $2; next }
		{ show() }
		END { show() }' | xargs
}

# are_confined: no unit is exposed more than this, in tenths, by what systemd knows of its restrictions.
are_confined() {
	units=$CHECKOUT/contrib/systemd/pmemctl
	are_exposed 30 "$units-restore.service" "$units-save.service" && are_exposed 50 "$units-monitor.service" &&
		are_exposed 40 "$units-import-cxl.service" "$units-metrics.service" "$units-scrub@.service"
}

# are_exposed TENTHS FILE…: none more than that; prints the exposure of each if one is.
are_exposed() {
	exposed_most=$1
	shift
	systemd-analyze security --offline=yes --threshold="$exposed_most" "$@" >/tmp/security || {
		grep -i exposure /tmp/security | tail -n $#
		return 1
	}
}

# make_bad NAME OFFSET: makes a page of that file bad; $at is its offset on the disk.
make_bad() {
	at=$(sed -n "s/^$1 $2 //p" /tmp/places)
	echo "$((at / 512)) 8" >"/sys/block/$disk/badblocks"
}

# saved_offsets: in order.
saved_offsets() {
	jq -r '[.list.errors[].offset] | sort | map(tostring) | join(" ")' "$saved_list"
}

saved_are() {
	[ "$(saved_offsets)" = "$1" ]
}

: >/tmp/journal.before
need filefrag jq journalctl nsenter perl pgrep systemctl udevadm unshare xfs_db xfs_logprint
plan 50
load_driver
namespace=$(e820_ns)
leave_one_region "$(region_of_namespace "$namespace")"
disk=$(e820_disk)
saved_list=$(state_file e820 "$namespace")
install_machine
make_fs ext4 "$disk"
mount_dax "$disk"
for name in old used other leased; do
	fallocate -l 4M "$MNT/$name"
	pmem-io fill "$MNT/$name"
	for offset in 8192 409600 1048576; do
		echo "$name $offset $(disk_offset_of "$MNT/$name" $offset)"
	done
done >/tmp/places
sync
umount "$MNT"
make_bad old 8192
old=$at
list="$((old / 512)) 8"
pmemctl errors save --all >/dev/null

install -D -m 755 "$(command -v pmemctl)" /usr/sbin/pmemctl
install -D -m 644 -t /usr/lib/systemd/system "$CHECKOUT"/contrib/systemd/pmemctl-*.service "$CHECKOUT"/contrib/systemd/pmemctl-*.timer
# The man pages are not installed here.
# shellcheck disable=SC2086 # each
check "the units are sound" systemd-analyze verify --man=no $SERVICES pmemctl-import-cxl.service \
	pmemctl-metrics.timer pmemctl-metrics.service pmemctl-scrub@pmem0.timer pmemctl-scrub@pmem0.service
check "and confined" are_confined
check "so is the rule" udevadm verify "$CHECKOUT/contrib/udev/59-pmemctl.rules"

# ---- too late ----

echo "/dev/$disk /srv ext4 dax=always 0 0" >/etc/fstab
install -d $UNITS/pmemctl-restore.service.d
printf '[Unit]\nAfter=srv.mount\n' >$UNITS/pmemctl-restore.service.d/late.conf
SYSTEMD_OFFLINE=1 systemctl enable pmemctl-restore.service 2>/dev/null
is_empty "nothing is known before the first boot" clear_kernel_lists
boot
is_empty "without the rule, and with the service late: nothing is listed when it is mounted" cat /tmp/mounted
is "too late it is" "$(cat "/sys/block/$disk/badblocks")" "$list"
shut_down "the late service"

# ---- the rule ----

install -D -m 644 -t /usr/lib/udev/rules.d "$CHECKOUT/contrib/udev/59-pmemctl.rules"
SYSTEMD_OFFLINE=1 systemctl enable pmemctl-save.service pmemctl-monitor.service 2>/dev/null
cat >$UNITS/maps.service <<-END
	[Service]
	Type=exec
	ExecStart=pmem-io map --length 4M /srv/used load run='touch /tmp/maps.ready; sleep inf'
END
is_empty "nor before the second" clear_kernel_lists
boot
is "by the rule it is listed when it is mounted" "$(cat /tmp/mounted)" "$list"
check "a known error is reported, of a file that nobody uses" logs pmemctl-monitor "^<2>$disk: media error at .*, 4K: /srv/old at 8K; known before$"

inside systemctl start maps.service
wait_for 40 test -e /tmp/maps.ready
pid=$(inside systemctl show -P MainPID maps.service)
make_bad used 409600
used=$at
check "a new error is reported, with the process that has the file mapped" \
	logs pmemctl-monitor "^<2>$disk: media error at .*, 4K: /srv/used at 400K; mapped by process $pid (pmem-io) at 0x[0-9a-f]*$"
check "it is saved" wait_for 40 saved_are "$old $used"
make_bad other 8192
check "and one of a file that nobody uses" logs pmemctl-monitor "^<2>$disk: media error at .*, 4K: /srv/other at 8K$"
check "that is saved, too" wait_for 40 saved_are "$old $used $at"

# ---- stopped, and started again ----

# shellcheck disable=SC2086 # each
inside systemctl stop $SERVICES
is "stopped: without a failure" "$(states ActiveState Result ExecMainStatus)" "inactive success 0 inactive success 0 inactive success 0"
inside dd if=/dev/zero of=/srv/other bs=4096 seek=2 count=1 conv=notrunc status=none
check_fails "one is repaired" grep -q "^$((at / 512)) " "/sys/block/$disk/badblocks"
is "while nothing is saved" "$(saved_offsets)" "$old $used $at"
# shellcheck disable=SC2086 # each
check "started again" inside systemctl start $SERVICES
is "started again: active" "$(states ActiveState Result)" "active success active success active success"
check "the repaired one is forgotten" wait_for 40 saved_are "$old $used"
check_fails "and not listed" grep -q "^$((at / 512)) " "/sys/block/$disk/badblocks"

# ---- a hook ----

install -d /var/lib/pmem-hook /etc/pmemctl/hooks.d
install -m 2755 -g mail "$(command -v id)" /usr/local/bin/group-of-mail
cat >/etc/pmemctl/hooks.d/10-test <<-'END'
	#!/bin/sh
	for folder in /var/lib/pmem-hook /var/tmp /tmp /run /etc /root /srv /dev/shm; do
		! touch $folder/hook || echo "may write to $folder"
	done 2>/dev/null | sort | sed "s/^/$PMEMCTL_OFFSET /"
	echo "$PMEMCTL_OFFSET is of group $(group-of-mail -gn)"
	echo "$PMEMCTL_OFFSET $PMEMCTL_NEW $PMEMCTL_COMPLETE $PMEMCTL_OWNER $PMEMCTL_FILE_OFFSET $PMEMCTL_MAPPED_BY"
	systemctl start --no-block hook-job@$PMEMCTL_OFFSET.service
END
printf '#!/bin/sh\necho unsafe >>/var/lib/pmem-hook/unsafe\n' >/etc/pmemctl/hooks.d/20-unsafe
chmod 755 /etc/pmemctl/hooks.d/10-test
chmod 775 /etc/pmemctl/hooks.d/20-unsafe
cat >$UNITS/hook-job@.service <<-'END'
	[Service]
	ExecStart=sh -c 'touch /var/tmp/hook-job.%i; group-of-mail -gn'
END
printf '[Service]\nReadWritePaths=/var/lib/pmem-hook\n' |
	inside systemctl edit --stdin pmemctl-monitor.service >/dev/null 2>&1
inside systemctl restart pmemctl-monitor.service
check "with a hook it watches" wait_for 40 watch_count 3
make_bad used 1048576
check "the hook gets the error" logs pmemctl-monitor "^<6>$at 1 1 /srv/used 1048576 $pid$"
check "a hook that others may change is refused" logs pmemctl-monitor "20-unsafe is not run: others may write"
check_fails "and not run" test -e /var/lib/pmem-hook/unsafe
is "the journal has the fields" "$(field_of_error "$at" '"\(.PMEM_OWNER) \(.PMEM_FILE_OFFSET) \(.PMEM_KIND) \(.SYSLOG_IDENTIFIER)"')" \
	"/srv/used 1048576 file pmemctl"
is "and an id that the catalog explains" "$(field_of_error "$at" .MESSAGE_ID)" "$(sed -n '/^Subject: .*has a media error/{x;s/^-- //p};h' \
	"$CHECKOUT/contrib/systemd/rust_pmem.catalog")"
is "the state of the service" "$(inside systemctl show -P StatusText pmemctl-monitor.service)" "watching $disk; 1 error reported"
is "an error reported before a restart is not reported again" "$(journal pmemctl-monitor | grep -c ': /srv/old at 8K; known before')" 1
is "where it may write" "$(journal pmemctl-monitor | sed -n "s/^<6>$at may write to //p" | sort -u | xargs)" "/dev/shm /var/lib/pmem-hook"
check "a set-group-ID bit does nothing for it" logs pmemctl-monitor "^<6>$at is of group root$"
check "but for a unit that it starts" logs "hook-job@$at" "^<6>mail$"
check "which may write elsewhere" test -e "/var/tmp/hook-job.$at"
check "saved by then" wait_for 40 saved_are "$old $used $at"

# ---- a lease ----

cat >$UNITS/lease.service <<-END
	[Service]
	Type=exec
	ExecStart=pmemctl lease --exclusive /srv/leased -- sh -c 'touch /tmp/lease.taken; until [ -e /tmp/lease.end ]; do sleep 0.1; done'
END
inside systemctl start lease.service
wait_for 40 test -e /tmp/lease.taken
saved=$(saved_offsets)
make_bad leased 8192
check "a file that has a lease is searched" logs pmemctl-monitor "^<2>$disk: media error at .*, 4K: /srv/leased at 8K"
touch /tmp/lease.end

# ---- a stop while a hook runs ----

cat >/etc/pmemctl/hooks.d/30-slow <<-'END'
	#!/bin/sh
	[ "$PMEMCTL_FILE_OFFSET" = 409600 ] || exit 0
	cd /var/lib/pmem-hook
	sleep inf &
	echo $! >child
	touch begun
	sleep 2
	touch ended
END
chmod 755 /etc/pmemctl/hooks.d/30-slow
first=$at
make_bad leased 409600
check "a hook runs" wait_for 40 test -e /var/lib/pmem-hook/begun
child=$(cat /var/lib/pmem-hook/child)
check "with a child" inside test -e "/proc/$child"
inside systemctl stop pmemctl-monitor.service
check "a stop lets it end" test -e /var/lib/pmem-hook/ended
check "but kills its child" inside test ! -e "/proc/$child"
# shellcheck disable=SC2086 # a list
check "saved as well" wait_for 40 saved_are "$(printf '%s\n' $saved "$first" "$at" | sort -n | xargs)"
shut_down "the rule"

# ---- /var on its own file system ----

list=$(saved_offsets | xargs -n 1 | awk '{ print $1 / 512, 8 }')
rm -r $UNITS/pmemctl-restore.service.d
SYSTEMD_OFFLINE=1 systemctl disable pmemctl-monitor.service 2>/dev/null
mv $STATE /var/tmp/state
install -d $STATE
cat >/etc/fstab <<-END
	/dev/$disk /srv ext4 dax=always,x-systemd.after=pmemctl-restore.service 0 0
	/var/tmp/state $STATE none bind,x-systemd.after=dev-$disk.device 0 0
END
is_empty "nor before the third" clear_kernel_lists
boot
check "the rule came too early" logs pmemctl-restore "^<6>$disk .* restored "
is "by the service it is listed when it is mounted" "$(cat /tmp/mounted)" "$list"
make_bad other 409600
check "what is new is saved" wait_for 40 grep -q "\"offset\": *$at\>" "/var/tmp/state/$(basename "$(state_file e820 "$(e820_ns)")")"
is_empty "and nothing below the mount" ls -A $STATE
shut_down "/var of its own"

# ---- an XFS that is not mounted ----

clear_kernel_lists >/tmp/cleared
rm -r /etc/pmemctl/hooks.d
: >/etc/fstab
make_fs xfs "$disk" --unsupported >/dev/null
mount "/dev/$disk" "$MNT"
dd if=/dev/zero of="$MNT/file" bs=64K count=1 conv=fsync status=none
at=$(disk_offset_of "$MNT/file" 8192)
umount "$MNT"
SYSTEMD_OFFLINE=1 systemctl enable pmemctl-monitor.service 2>/dev/null
boot
check "not mounted: it watches" wait_for 40 watch_count 1
echo "$((at / 512)) 8" >"/sys/block/$disk/badblocks"
check "not mounted: the file is found" logs pmemctl-monitor "^<2>$disk: media error at .*, 4K: .*/file.* at 8K"
shut_down "not mounted"
