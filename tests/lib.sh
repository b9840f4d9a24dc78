# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the selftests share. A test begins with
#
#	#!/bin/sh
#	# SPDX-License-Identifier: GPL-2.0
#	# What is tested, in a sentence or two.
#	# vm: OPTIONS OF pmem-vm       (otherwise the default machine; tests with the same line share one)
#	# timeout: SECONDS             (otherwise 120)
#	# expect-splat: TEXT           (a report of the kernel with this text in it does not fail the test)
#	# quick                        (of tests in tests/parity: `make check` runs it, too)
#	. "$(dirname "$0")/../lib.sh"
#	plan 3
#	check "a file system is made" mkfs.ext4 -q /dev/pmem0
#
# and prints KTAP. Statuses: 0 = all passed, 1 = failed, 4 = skipped. A function `cleanup` of the test is called at its end,
# however that comes.
#
# Environment: DRIVER (rust_pmem or nd_pmem), STAGE (1, then 2 after `host powercut` or `host reboot`, …), MODULE (the path of
# rust_pmem.ko), CHECKOUT (where that is, for who is no test in it). `host` asks the runner for what only it can do; pmem-io does
# to a file or a mapping what packaged programs don't; pmemctl is the administrator's tool.

set -eu

: "${CHECKOUT:=$(realpath "$(dirname "$0")/../..")}"
: "${DRIVER:=rust_pmem}" "${STAGE:=1}" "${MODULE:=$CHECKOUT/rust_pmem.ko}"
ND=/sys/bus/nd/devices

# Run from the guest's own memory, as the way to the checkout is long.
TOOLS=$CHECKOUT/build/tools/release
for tool in pmem-io pmemctl; do
	if [ ! -e "/run/pmem/$tool" ] && [ -e "$TOOLS/$tool" ]; then
		mkdir -p /run/pmem
		cp "$TOOLS/$tool" /run/pmem/
	fi
done
PATH=/run/pmem:$PATH

# ---- KTAP ----

TAP_COUNT=0
TAP_FAILED=0
TAP_PLAN=

# plan N: so many subtests follow.
plan() {
	TAP_PLAN=$1
	printf 'KTAP version 1\n1..%d\n' "$1"
}

ok() {
	TAP_COUNT=$((TAP_COUNT + 1))
	printf 'ok %d %s\n' "$TAP_COUNT" "$*"
}

not_ok() {
	TAP_COUNT=$((TAP_COUNT + 1))
	TAP_FAILED=$((TAP_FAILED + 1))
	printf 'not ok %d %s\n' "$TAP_COUNT" "$*"
}

# check NAME COMMAND…: ok when the command succeeds; what it prints becomes diagnosis.
check() {
	tap_name=$1
	shift
	tap_status=0
	tap_output=$("$@" 2>&1) || tap_status=$?
	if [ "$tap_status" -eq 0 ]; then
		ok "$tap_name"
	else
		not_ok "$tap_name"
		printf '# status %d of: %s\n' "$tap_status" "$*"
		[ -z "$tap_output" ] || printf '%s\n' "$tap_output" | sed 's/^/# /'
	fi
}

# check_fails NAME COMMAND…: ok when the command fails.
check_fails() {
	tap_name=$1
	shift
	if tap_output=$("$@" 2>&1); then
		not_ok "$tap_name"
		printf '# succeeded: %s\n' "$*"
		[ -z "$tap_output" ] || printf '%s\n' "$tap_output" | sed 's/^/# /'
	else
		ok "$tap_name"
	fi
}

# is NAME GOT WANTED: ok when both are the same text.
is() {
	if [ "$2" = "$3" ]; then
		ok "$1"
	else
		not_ok "$1"
		printf 'got:    %s\nwanted: %s\n' "$2" "$3" | sed 's/^/# /'
	fi
}

# seen NAME VALUE: a subtest whose verdict is a comparison: `make parity` holds what was seen with one driver against what was
# seen with the other, and tests/parity/differences.toml lists what may differ. Nothing seen is a failure.
seen() {
	if [ -n "$2" ]; then
		ok "$1"
		printf '%s\n' "$2" | sed 's/^/# seen: /'
	else
		not_ok "$1"
		printf '# nothing seen\n'
	fi
}

# answers NAME COMMAND…: seen, what the command answers: its output and `ok`, or the last line that it said and its status.
answers() {
	tap_name=$1
	shift
	tap_status=0
	tap_output=$("$@" 2>&1) || tap_status=$?
	if [ "$tap_status" -eq 0 ]; then
		seen "$tap_name" "${tap_output:+$tap_output
}ok"
	else
		seen "$tap_name" "$(printf '%s' "$tap_output" | tail -n 1) (status $tap_status)"
	fi
}

# skip NAME REASON: one subtest that does not apply here.
skip() {
	TAP_COUNT=$((TAP_COUNT + 1))
	printf 'ok %d %s # SKIP %s\n' "$TAP_COUNT" "$1" "$2"
}

# skip_all REASON: the test does not apply here. Before plan.
skip_all() {
	printf 'KTAP version 1\n1..0 # SKIP %s\n' "$*"
	TAP_PLAN=0
	exit 4
}

# need PROGRAM…: fails the test at once where one is missing; an absent tool must not look like a result.
need() {
	for tap_tool in "$@"; do
		command -v "$tap_tool" >/dev/null || {
			printf '# the guest has no %s\n' "$tap_tool"
			exit 1
		}
	done
}

cleanup() {
	:
}

tap_end() {
	tap_status=$?
	trap - EXIT
	set +e
	cleanup
	[ "$tap_status" -eq 0 ] || exit "$tap_status"
	if [ "$TAP_FAILED" -ne 0 ]; then
		exit 1
	fi
	if [ "$TAP_COUNT" -ne "${TAP_PLAN:-0}" ]; then
		printf '# %d subtests planned, %d run\n' "${TAP_PLAN:-0}" "$TAP_COUNT"
		exit 1
	fi
	exit 0
}
trap tap_end EXIT
trap 'exit 1' INT TERM

# wait_for SECONDS COMMAND…: until it succeeds, no longer than that.
wait_for() {
	wait_tries=$(($1 * 10))
	shift
	until "$@"; do
		[ $((wait_tries -= 1)) -gt 0 ] || return
		sleep 0.1
	done
}

# ---- drivers ----

# load_providers: what makes namespaces of the machine's memory, as udev would load it.
load_providers() {
	modprobe -a nfit nd_e820 virtio_pmem
	[ ! -e /sys/bus/acpi/devices/ACPI0017:00 ] || modprobe -a cxl_acpi cxl_pci cxl_mem cxl_pmem
}

# load_driver: the driver under test, bound to what is there.
load_driver() {
	load_providers
	if ! driver_loaded; then
		case $DRIVER in
		rust_pmem)
			[ -e "$MODULE" ] || {
				echo "there is no $MODULE: make module"
				return 1
			}
			for nd_module in $(modinfo -F depends "$MODULE" | tr , ' '); do
				modprobe "$nd_module"
			done
			insmod "$MODULE"
			;;
		*)
			modprobe "$DRIVER"
			;;
		esac
	fi
	settle
}

driver_loaded() {
	[ -d "/sys/module/$DRIVER" ]
}

unload_driver() {
	rmmod "$DRIVER"
}

# rebind DEVICE OF THE nd BUS: it is given up by the driver under test and taken again.
rebind() {
	echo "$1" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	echo "$1" >"/sys/bus/nd/drivers/$DRIVER/bind"
	settle
}

# settle: waits until all probes of the nd bus are done.
settle() {
	for nd_bus in "$ND"/ndbus*; do
		[ ! -e "$nd_bus/wait_probe" ] || cat "$nd_bus/wait_probe" >/dev/null
	done
}

# ---- namespaces ----

# The entries of $ND are links: the parent of a namespace's folder is its region, and that one's is its bus. Here, a process
# started is a hundred things not done by the shell.

# namespaces PROVIDER: the namespaces that have a size and whose bus is of this kind: ACPI.NFIT, e820, virtio-pmem…
namespaces() {
	for nd_namespace in "$ND"/namespace*; do
		[ -e "$nd_namespace/size" ] || continue
		read -r nd_size <"$nd_namespace/size"
		read -r nd_provider <"$nd_namespace/../../provider"
		[ "$nd_size" = 0 ] || [ "$nd_provider" != "$1" ] || printf '%s\n' "${nd_namespace##*/}"
	done
}

# nfit_ns, e820_ns, virtio_ns: the first namespace of an NVDIMM, of e820 memory, of virtio-pmem.
nfit_ns() {
	namespaces ACPI.NFIT | head -n 1
}

e820_ns() {
	namespaces e820 | head -n 1
}

virtio_ns() {
	namespaces virtio-pmem | head -n 1
}

# cxl_ns, ramdax_ns: the first namespace of a CXL region, of e820 memory that ramdax has.
cxl_ns() {
	namespaces CXL | head -n 1
}

ramdax_ns() {
	namespaces ramdax | head -n 1
}

# region_of PROVIDER: its first region.
region_of() {
	for nd_region in "$ND"/region*; do
		[ -e "$nd_region/../provider" ] || continue
		read -r nd_provider <"$nd_region/../provider"
		if [ "$nd_provider" = "$1" ]; then
			printf '%s\n' "${nd_region##*/}"
			return
		fi
	done
	return 1
}

# nfit_region: the first region of an NVDIMM.
nfit_region() {
	region_of ACPI.NFIT
}

# make_cxl_region SIZE UUID: a region of the first CXL device, which the same call brings back after a reboot with what is in it.
make_cxl_region() {
	modprobe -a cxl_acpi cxl_pci cxl_mem cxl_pmem || return
	for _ in $(seq 50); do
		[ ! -e /sys/bus/cxl/devices/mem0 ] || [ ! -e /sys/bus/cxl/devices/decoder0.0 ] || break
		sleep 0.2
	done
	cxl create-region -d decoder0.0 -m mem0 -t pmem -s "$1" -U "$2" || return
	settle
}

# ramdax_has: e820 memory goes to ramdax, which gives it a label area; nd_e820 must not be loaded.
ramdax_has() {
	modprobe ramdax || return
	echo ramdax >/sys/bus/platform/devices/e820_pmem/driver_override
	echo e820_pmem >/sys/bus/platform/drivers/ramdax/bind || return
	settle
}

# disk_of NAMESPACE: the name of its disk (pmem0), whether a pfn or btt device claimed it or not; fails where there is none.
disk_of() {
	for nd_block in "$ND/$1"/block/* "$ND/$1"/../*/block/*; do
		[ -e "$nd_block" ] || continue
		nd_owner=${nd_block%/block/*}
		if [ "${nd_owner##*/}" != "$1" ]; then
			[ -e "$nd_owner/namespace" ] || continue
			read -r nd_claimed <"$nd_owner/namespace" || continue
			[ "$nd_claimed" = "$1" ] || continue
		fi
		printf '%s\n' "${nd_block##*/}"
		return
	done
	return 1
}

# fresh_labels: empty labels on every NVDIMM, as ndctl needs them to make namespaces; what was there is gone.
fresh_labels() {
	ndctl disable-region all >/dev/null 2>&1 || :
	ndctl init-labels -f all >/dev/null 2>&1
	ndctl enable-region all >/dev/null 2>&1
	settle
}

# make_fsdax NAMESPACE [MAP]: makes it an fsdax namespace with its page map in memory (mem) or on the device (dev), and prints the
# name of its disk.
make_fsdax() {
	ndctl create-namespace -f -e "$1" -m fsdax -M "${2:-mem}" >/tmp/make_fsdax.json || return
	settle
	jq -r .blockdev /tmp/make_fsdax.json
}

# make_namespace ARGUMENTS OF ndctl create-namespace…: makes one and prints ndctl's JSON.
make_namespace() {
	ndctl create-namespace -f "$@" || return
	settle
}

# ---- disks ----

# has_labels REGION: whether its NVDIMM has a label area.
has_labels() {
	[ -e "$ND/$1/mapping0" ] || return
	IFS=, read -r nd_dimm _ <"$ND/$1/mapping0"
	read -r nd_commands <"$ND/$nd_dimm/commands"
	case " $nd_commands " in
	*" set_data "*) ;;
	*) return 1 ;;
	esac
}

# labelled_region: the region of an NVDIMM that has a label area.
labelled_region() {
	for nd_region in "$ND"/region*; do
		if has_labels "${nd_region##*/}"; then
			printf '%s\n' "${nd_region##*/}"
			return
		fi
	done
	return 1
}

# labelled_disk ARGUMENTS OF ndctl create-namespace…: the only namespace of that region, its labels being emptied before; prints
# the name of its disk.
labelled_disk() {
	fresh_labels
	ndctl create-namespace -r "$(labelled_region)" "$@" >/tmp/labelled_disk.json || return
	settle
	jq -r .blockdev /tmp/labelled_disk.json
}

# plain_disk: the disk of an NVDIMM that has no label area, raw.
plain_disk() {
	for nd_plain in $(namespaces ACPI.NFIT); do
		if ! has_labels "$nd_plain/.."; then
			disk_of "$nd_plain"
			return
		fi
	done
	return 1
}

# e820_disk: the disk of the e820 memory, raw.
e820_disk() {
	disk_of "$(e820_ns)"
}

# owner_of DISK: the device of the nd bus that it is of: the namespace, or what has claimed it.
owner_of() {
	basename "$(readlink -f "/sys/block/$1/device")"
}

# forget_errors DISK: none is known of its namespace any more, for whoever is bound next either. What was written to badblocks, C
# forgets when it is unbound.
forget_errors() {
	nd_owner=/sys/block/$1/device
	[ -e "$nd_owner/errors/list" ] || return 0
	[ ! -e "$nd_owner/namespace" ] || nd_owner=$ND/$(cat "$nd_owner/namespace")
	echo "drop 0 $(cat "$nd_owner/size")" >"/sys/block/$1/device/errors/list"
}

# ---- file systems ----

MNT=/tmp/mnt

# place_of FILE OFFSET: where that byte of a file is on the device of its file system, as that tells.
place_of() {
	# Not by its name, which may look like a line of the answer.
	filefrag -e -b1 -v /proc/self/fd/0 <"$1" | tr :. '  ' |
		awk -v at="$2" '$1 ~ /^[0-9]+$/ && at >= $2 && at <= $3 { printf "%.0f\n", $4 + at - $2; exit }'
}

# sector_of FILE [OFFSET]: the sector that it is in.
sector_of() {
	echo $(($(place_of "$1" "${2:-0}") / 512))
}

# make_fs ext4|xfs DISK [OPTION OF mkfs…]: a file system for DAX: pages as blocks, files aligned for mappings of 2 MiB.
make_fs() {
	fs_type=$1
	fs_disk=/dev/$2
	shift 2
	case $fs_type in
	ext4) mkfs.ext4 -q -F -b 4096 -E stride=512,stripe_width=512,nodiscard "$@" "$fs_disk" ;;
	xfs) modprobe xfs && mkfs.xfs -q -f -K -d agcount=2,su=2m,sw=1 "$@" "$fs_disk" ;;
	esac
}

# mount_dax DISK [OPTIONS]: mounts it at MNT, all of its files with DAX.
mount_dax() {
	mkdir -p "$MNT"
	mount -o "dax=always${2:+,$2}" "/dev/$1" "$MNT"
}

# try_dax DISK: the same, or ext4's own words why it can't be.
try_dax() {
	mount_dax "$1" 2>/dev/null || {
		dmesg | sed -n 's/.*EXT4-fs ([^)]*): //p' | tail -n 1
		return 1
	}
}

# gives_before BYTES FILE: whether a read of a DAX file whose page at BYTES is the first bad one gives nothing of that: some of what
# is before it, or EIO. How much is up to driver and kernel: both may give up a stretch with a bad page as a whole.
gives_before() {
	if given=$(pmem-io pread "$2" --length 4M 2>&1); then
		[ "$given" -le "$1" ]
	else
		case $given in
		*'Input/output error'*) ;;
		*) printf '%s\n' "$given" && return 1 ;;
		esac
	fi
}

# ---- several drivers ----

# forget: regions and their namespaces are made anew, so that all that is known of them is what is on them. Without a driver loaded.
forget() {
	ndctl disable-region all >/dev/null 2>&1
	ndctl enable-region all >/dev/null 2>&1
}

# other_driver: the one that is not under test.
other_driver() {
	case $DRIVER in
	rust_pmem) echo nd_pmem ;;
	*) echo rust_pmem ;;
	esac
}

# both_drivers: skips the test where there is no module of ours. Before plan.
both_drivers() {
	[ -e "$MODULE" ] || skip_all "there is no $MODULE: make module"
}

# unload_both: neither has anything any more.
unload_both() {
	rmmod rust_pmem 2>/dev/null || :
	rmmod nd_pmem 2>/dev/null || :
}

# load_both: the other one as well, with nothing to do.
load_both() {
	load_driver
	DRIVER=$(other_driver)
	load_driver
	DRIVER=$(other_driver)
}

# swap_drivers: the other one finds all namespaces for itself, and is the one that DRIVER says from here on.
swap_drivers() {
	unload_driver
	forget
	DRIVER=$(other_driver)
	load_driver
}

# driver_of DEVICE OF THE nd BUS: its name; nothing where there is none.
driver_of() {
	[ ! -e "$ND/$1/driver" ] || basename "$(readlink "$ND/$1/driver")"
}

# as_raw NAMESPACE COMMAND…: the command, with the namespace's disk as its last argument, while all of the namespace is seen as
# it is: info block, page map and data.
as_raw() {
	raw_namespace=$1
	shift
	ndctl disable-namespace "$raw_namespace" >/dev/null 2>&1
	echo 1 >"$ND/$raw_namespace/force_raw"
	echo "$raw_namespace" >"/sys/bus/nd/drivers/$DRIVER/bind"
	raw_status=0
	"$@" "/dev/$(basename "$ND/$raw_namespace/block/"*)" || raw_status=$?
	echo "$raw_namespace" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	echo 0 >"$ND/$raw_namespace/force_raw"
	ndctl enable-namespace "$raw_namespace" >/dev/null 2>&1
	settle
	return "$raw_status"
}

# Without a host, the machine is somebody's.
# shellcheck source=elsewhere.sh
[ -e /dev/virtio-ports/host ] || . "$(dirname "$0")/../elsewhere.sh"
