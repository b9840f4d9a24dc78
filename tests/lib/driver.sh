# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers to load a driver, and to move a namespace from one driver to the other.

# load_providers: loads the modules that create the regions of this machine, which udev would do.
load_providers() {
	# With lib/provider.sh, the memory of an NVDIMM may be the provider's.
	[ -n "${MEMORY:-}" ] || load_module nfit
	load_module virtio_pmem
	[ ! -e /sys/bus/platform/devices/e820_pmem ] || load_module nd_e820
	[ ! -e /sys/bus/acpi/devices/ACPI0017:00 ] || load_module cxl_acpi cxl_pci cxl_mem cxl_pmem
}

# load_module NAME…: by a process only if it is not there.
load_module() {
	for nd_module; do
		[ -d "/sys/module/$nd_module" ] || modprobe "$nd_module" || return
	done
}

# load_driver: loads the driver under test and waits until it is bound.
load_driver() {
	load_providers
	if ! driver_loaded; then
		case $DRIVER in
		rust_pmem)
			[ -e "$MODULE" ] || {
				echo "there is no $MODULE: make module"
				return 1
			}
			: "${driver_depends:=$(modinfo -F depends "$MODULE" | tr , ' ')}"
			# shellcheck disable=SC2086 # a list
			load_module $driver_depends || return
			insmod "$MODULE" || return
			;;
		*)
			modprobe "$DRIVER" || return
			;;
		esac
	fi
	settle
}

# load_driver_anew: the same, for a test that needs what the driver sets by default: others may have changed that.
load_driver_anew() {
	! driver_loaded || unload_driver || return
	load_driver
}

# tap_leaves_nothing: fails, and says why, if the driver is in use.
tap_leaves_nothing() {
	! grep '^/dev/[^ ]*pmem' /proc/mounts || return
	driver_users=/sys/module/$DRIVER/refcnt
	[ -e "$driver_users" ] || return 0
	read -r driver_count <"$driver_users"
	[ "$driver_count" -eq 0 ] || {
		echo "$driver_users is $driver_count"
		return 1
	}
}

driver_loaded() {
	[ -d "/sys/module/$DRIVER" ]
}

unload_driver() {
	rmmod "$DRIVER"
}

# rebind DEVICE OF THE nd BUS: unbinds the driver under test from it and binds it again.
rebind() {
	echo "$1" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	echo "$1" >"/sys/bus/nd/drivers/$DRIVER/bind"
	settle
}

# bind_error DEVICE: the error text if the driver under test fails to bind a device of the nd bus; nothing if it
# succeeds.
bind_error() {
	env echo "$1" 2>&1 >"/sys/bus/nd/drivers/$DRIVER/bind" | sed 's/.*write error: //'
}

# settle: waits until all probes of the nd bus are done.
settle() {
	for nd_bus in "$ND"/ndbus*; do
		[ ! -e "$nd_bus/wait_probe" ] || read -r _ <"$nd_bus/wait_probe"
	done
}

# reset_regions: removes and recreates all regions and namespaces, so that only on-media state is left. Needs the driver
# unloaded.
reset_regions() {
	disable_regions
	enable_regions
}

# other_driver: the name of the driver that is not under test.
other_driver() {
	case $DRIVER in
	rust_pmem) echo nd_pmem ;;
	*) echo rust_pmem ;;
	esac
}

# need_both_drivers: skips the test if rust_pmem.ko was not built. Call it before plan.
need_both_drivers() {
	[ -e "$MODULE" ] || skip_all "there is no $MODULE: make module"
}

# unload_both_drivers: unloads rust_pmem and nd_pmem.
unload_both_drivers() {
	rmmod rust_pmem 2>/dev/null || :
	rmmod nd_pmem 2>/dev/null || :
}

# load_both_drivers: loads the driver under test, then the other one, which finds no free namespace.
load_both_drivers() {
	load_driver
	DRIVER=$(other_driver)
	load_driver
	DRIVER=$(other_driver)
}

# swap_drivers: unloads the driver under test and lets the other one take all namespaces. DRIVER is the other one from
# here on.
swap_drivers() {
	unload_driver
	reset_regions
	DRIVER=$(other_driver)
	load_driver
}

# name_of_folder PATH: the name of the folder that the path leads to, in sysfs as a rule; empty without it.
name_of_folder() {
	(cd -P "$1" 2>/dev/null && printf '%s\n' "${PWD##*/}") || echo
}

# driver_of DEVICE OF THE nd BUS: the name of its driver; nothing if it has none.
driver_of() {
	[ ! -e "$ND/$1/driver" ] || name_of_folder "$ND/$1/driver"
}

# with_force_raw NAMESPACE COMMAND…: runs the command with the namespace's disk as its last argument, while force_raw
# shows the info block and the memmap as well as the data.
with_force_raw() {
	raw_namespace=$1
	shift
	ndctl disable-namespace "$raw_namespace" >/dev/null 2>&1
	echo 1 >"$ND/$raw_namespace/force_raw"
	echo "$raw_namespace" >"/sys/bus/nd/drivers/$DRIVER/bind"
	raw_status=0
	for raw_disk in "$ND/$raw_namespace/block/"*; do :; done
	"$@" "/dev/${raw_disk##*/}" || raw_status=$?
	echo "$raw_namespace" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	echo 0 >"$ND/$raw_namespace/force_raw"
	ndctl enable-namespace "$raw_namespace" >/dev/null 2>&1
	settle
	return "$raw_status"
}

# remove_providers: unloads the driver, and the modules that create the regions: load_providers makes them anew, with the numbers and
# attributes that they have at first.
remove_providers() {
	! driver_loaded || unload_driver || return
	# An enabled region pins the module of its bus.
	disable_regions
	for nd_module in nfit nd_e820 virtio_pmem; do
		[ ! -d "/sys/module/$nd_module" ] || rmmod "$nd_module" || return
	done
}

# hold_freed_dax_devices: unloads the driver, and takes all DAX devices that were freed, until release_dax_devices: without
# patches/0003 a new one may have the flags of a freed one, so that nd_pmem and device mapper grant MAP_SYNC on virtio-pmem.
hold_freed_dax_devices() {
	! driver_loaded || unload_driver || return
	modprobe dm-mod
	# RCU frees them.
	sleep 1
	echo 1 >/sys/kernel/slab/dax_cache/shrink
	# More than there is place for now, and than a processor then gets at once (26): the next one has been none before.
	held_devices=$(awk '$1 == "dax_cache" { print $3 + 32 }' /proc/slabinfo)
	for held_device in $(seq "$held_devices"); do
		dmsetup create "held$held_device" --notable --noudevsync --noudevrules || return
	done
}

release_dax_devices() {
	# shellcheck disable=SC2046 # a list
	dmsetup remove --noudevsync --noudevrules $(seq -f held%g "${held_devices:-0}")
}
