# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2034 # sourced
#
# Shared by the hook of initramfs-tools and the module of dracut, for a root file system, /usr or /var on persistent memory:
# copies the drivers, and the files that put saved errors back on the kernel's lists before the mount.

# As udev requests them: the drivers of devices and buses, and those of namespaces.
pmem_modules='nfit nd_e820 virtio_pmem cxl_acpi cxl_pci cxl_mem cxl_port cxl_pmem nd_pmem nd_btt rust_pmem'

# A rule of the administrator replaces that in /usr/lib, as for udev; a link to /dev/null disables it.
pmem_files=/usr/lib/modprobe.d/rust_pmem.conf
pmem_rule=/etc/udev/rules.d/59-pmemctl.rules
[ -e $pmem_rule ] || pmem_rule=/usr/lib/udev/rules.d/59-pmemctl.rules
[ ! -f $pmem_rule ] || pmem_files="$pmem_rule $pmem_files"

# Lists of errors, with the identity of the machine that they were saved on, since they are restored there only.
pmem_saved=
[ ! -e /etc/machine-id ] || pmem_saved=/etc/machine-id
for pmem_list in /var/lib/pmemctl/*.json; do
	[ ! -f "$pmem_list" ] || pmem_saved="$pmem_saved $pmem_list"
done

# is_on_pmem SOURCE: a file system from SOURCE is on persistent memory, itself or through other block devices.
is_on_pmem() {
	lsblk --inverse --noheadings --raw --output NAME "$1" 2>/dev/null | grep -q '^pmem'
}

# is_system_on_pmem: the root of the running system is, or /usr, which the initramfs mounts, or /var, which has the saved lists of
# errors; or one of them is at the next boot; or PMEM=y in /etc/initramfs-tools/conf.d/rust_pmem says so.
is_system_on_pmem() {
	# shellcheck source=/dev/null
	[ ! -e /etc/initramfs-tools/conf.d/rust_pmem ] || . /etc/initramfs-tools/conf.d/rust_pmem
	[ "${PMEM:-}" != y ] || return 0
	# Without /proc or sysfs, as in a chroot, nobody knows: drivers too many are harmless.
	{ [ -e /proc/self/mountinfo ] && [ -d /sys/dev/block ]; } || return 0
	for pmem_directory in / /usr /var /var/lib /var/lib/pmemctl; do
		# There may be several, one on top of the other.
		for pmem_source in $(findmnt --nofsroot --noheadings --output SOURCE "$pmem_directory") \
			$(findmnt --fstab --evaluate --noheadings --output SOURCE "$pmem_directory"); do
			! is_on_pmem "$pmem_source" || return 0
		done
	done
	return 1
}

# has_namespaces: dracut's image for this machine has nd_pmem.
has_namespaces() {
	ls -d /sys/bus/nd/devices/namespace* >/dev/null 2>&1
}

# installed_drivers: those of the kernel's own drivers that a kernel here has; all if none can be found. Those that each kernel with
# nd_pmem has are in front: dracut copies none behind one that its kernel lacks.
installed_drivers() {
	pmem_everywhere='' pmem_elsewhere=''
	for pmem_driver in ${pmem_modules% rust_pmem}; do
		pmem_has='' pmem_lacks=''
		for pmem_kernel in /lib/modules/*/; do
			pmem_kernel=$(basename "$pmem_kernel")
			if modinfo -k "$pmem_kernel" "$pmem_driver" >/dev/null 2>&1; then
				pmem_has=y
			elif modinfo -k "$pmem_kernel" nd_pmem >/dev/null 2>&1; then
				pmem_lacks=y
			fi
		done
		case $pmem_has$pmem_lacks in
		y) pmem_everywhere="$pmem_everywhere $pmem_driver" ;;
		yy) pmem_elsewhere="$pmem_elsewhere $pmem_driver" ;;
		esac
	done
	pmem_found="$pmem_everywhere$pmem_elsewhere"
	echo "${pmem_found:-${pmem_modules% rust_pmem}}"
}

# keep_drivers: lists the kernel's own drivers in the configuration of initramfs-tools and dracut, if the machine needs them to
# boot. Called before pmemctl is removed, and with it the code that copies them. A removal that a power failure cuts off is not
# begun anew, so the lists are durable at the end.
keep_drivers() {
	is_system_on_pmem || return 0
	pmem_drivers=$(installed_drivers)
	pmem_list=/etc/initramfs-tools/modules
	pmem_unlisted=
	for pmem_driver in $pmem_drivers; do
		grep -qsxF "$pmem_driver" $pmem_list || pmem_unlisted="$pmem_unlisted $pmem_driver"
	done
	if [ -d ${pmem_list%/*} ] && [ -n "$pmem_unlisted" ]; then
		# shellcheck disable=SC2086 # a list
		printf '%s\n' '' '# For persistent memory; written when pmemctl was removed.' $pmem_unlisted >>$pmem_list && sync $pmem_list || return
		echo "pmemctl: the root file system, /usr or /var is, or may be, on persistent memory: $pmem_list now has its drivers."
	fi
	pmem_list=/etc/dracut.conf.d/pmem-drivers.conf
	if [ -d ${pmem_list%/*} ] && ! grep -qs '^ *add_drivers+=.*\bnd_pmem\b' $pmem_list; then
		printf '%s\n' '' '# For persistent memory; written when pmemctl was removed.' "add_drivers+=\" $pmem_drivers \"" >>$pmem_list &&
			sync $pmem_list || return
		echo "pmemctl: the root file system, /usr or /var is, or may be, on persistent memory: $pmem_list now has its drivers."
	fi
}
