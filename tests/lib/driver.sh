# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# The driver under test, the other one, and handing a namespace from one to the other.

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
