#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The modprobe.d rule loads rust_pmem for nd_pmem, and falls back if rust_pmem is missing, blacklisted or refused by the kernel.
# vm: provider
# timeout: 180
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

[ "$DRIVER" = rust_pmem ] || skip_all "it is about rust_pmem"

INSTALLED=/lib/modules/$(uname -r)/updates/rust_pmem.ko

cleanup() {
	! mountpoint -q /proc/cmdline || umount /proc/cmdline
	for module in rust_pmem nd_pmem pmem_provider; do
		[ ! -d "/sys/module/$module" ] || rmmod "$module"
	done
	[ ! -e /tmp/pmem.conf ] || mv /tmp/pmem.conf /etc/modprobe.d
	rm -f /etc/modprobe.d/rust_pmem.conf "$INSTALLED"
	cp /tmp/modules.* "/lib/modules/$(uname -r)"
}

# loaded_driver: prints which of the two drivers is loaded and which is bound, and unloads both.
loaded_driver() {
	settle
	for module in rust_pmem nd_pmem; do
		[ ! -d "/sys/module/$module" ] || echo "$module"
		[ ! -e "/sys/bus/nd/drivers/$module/$NAMESPACE" ] || echo "has it: $module"
		[ ! -d "/sys/module/$module" ] || rmmod "$module"
	done
}

plan 9
cp "/lib/modules/$(uname -r)"/modules.* /tmp
provider_load
NAMESPACE=$(namespaces pmem_provider)
is "without the rule and the module: nd_pmem" "$(modprobe nd_pmem && loaded_driver)" "nd_pmem
has it: nd_pmem"

cp "$(dirname "$0")/../contrib/modprobe.d/rust_pmem.conf" /etc/modprobe.d/
is "the rule alone falls back" "$(modprobe nd_pmem && loaded_driver)" "nd_pmem
has it: nd_pmem"

mkdir -p "${INSTALLED%/*}"
cp "$MODULE" "$INSTALLED"
depmod
# The guest's pmem.conf blacklists both modules.
is "a blacklisted module falls back" "$(modprobe nd_pmem && loaded_driver)" "nd_pmem
has it: nd_pmem"
mv /etc/modprobe.d/pmem.conf /tmp
is "with the module it prefers that" "$(modprobe nd_pmem && loaded_driver)" "rust_pmem
has it: rust_pmem"
is "by its own name it is there too" "$(modprobe rust_pmem && loaded_driver)" "rust_pmem
has it: rust_pmem"
is "as udev asks for it" "$(modprobe -b nd:t4 && loaded_driver)" "rust_pmem
has it: rust_pmem"
{ tr -d '\n' </proc/cmdline && echo ' modprobe.blacklist=rust_pmem'; } >/tmp/cmdline
mount --bind /tmp/cmdline /proc/cmdline
is "blacklisted on the kernel's command line, as udev asks for it" "$(modprobe -b nd:t4 && loaded_driver)" "nd_pmem
has it: nd_pmem"
umount /proc/cmdline
is "and nd_pmem all the same where that is wanted" "$(modprobe --ignore-install nd_pmem && loaded_driver)" "nd_pmem
has it: nd_pmem"

# Built for another kernel.
sed "s/vermagic=$(uname -r)/vermagic=$(uname -r | tr 0-9 1-90)/" "$MODULE" >"$INSTALLED"
is "what the kernel refuses falls back" "$(modprobe nd_pmem 2>/dev/null && loaded_driver)" "nd_pmem
has it: nd_pmem"
