#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tests/external/packages/system.sh [STEP...]: the project's packages on an installed Debian, in a virtual machine with
# persistent memory that has data. It runs in the build root; "make check-packages" makes what it needs. Without arguments it
# runs all steps, in this order.
#
# Each step begins with a copy of the machine that an earlier one has left in build/system/STEP: its disk and the memory of its
# NVDIMM.
set -eu

top=$(cd "$(dirname "$0")/../../.." && pwd -P)
cd "$top"
states=build/system
steps='prepared installed upgraded purged root secure_boot without_rust full dkms updated'
passed=0 failed=0

# boot_file NAME: copies vmlinuz or initrd.img of the newest kernel, as a boot loader takes them, or of $release.
boot_file() {
	path=$(debugfs -R 'ls -p /boot' "$state/disk.img" 2>/dev/null | cut -d/ -f6 | grep -E "^$1-$release" | sort -V | tail -n 1)
	debugfs -R "dump /boot/$path $state/$1" "$state/disk.img" 2>/dev/null
	[ -s "$state/$1" ] || {
		echo "there is no /boot/$1"
		exit 1
	}
}

# boot "STEP [ARGUMENT...]" [OPTION...]: boots the machine, with these options of pmem-vm, and runs this step of
# system-guest.sh in it; then the machine shuts down.
boot() {
	printf '== %s: %s\n' "$name" "$*"
	step=$1
	shift
	boot_file vmlinuz
	boot_file initrd.img
	status=0
	: >"$state/output"
	build/tools/debug/pmem-vm --driver none --memory 3G --disk "$state/disk.img" --kernel "$state/vmlinuz" \
		--initrd "$state/initrd.img" --state "$state" --nvdimm size=512M,labels "$@" --log "$state/serial.log" \
		--run "sh /rust_pmem/tests/external/packages/system-guest.sh $step" >"$state/output" &
	tail --pid=$! --lines=+1 --follow "$state/output" | sed --unbuffered 's/^/   /'
	wait $! || status=$?
	passed=$((passed + $(grep -c '^ok ' "$state/output" || :)))
	bad=$(grep -c '^not ok ' "$state/output" || :)
	[ "$status" = "$expected" ] || [ "$bad" != 0 ] || bad=1
	failed=$((failed + bad))
}

# from STATE: begins with a copy of that machine.
from() {
	release='' expected=0
	[ "$1" = image ] || [ -d "$states/$1" ] || {
		echo "there is no $states/$1: the step \"$1\" makes it" >&2
		exit 1
	}
	rm -rf "$state"
	mkdir -p "$state"
	case $1 in
	image) cp --sparse=always build/images/system/disk.img "$state" ;;
	*) cp --sparse=always "$states/$1"/*.img "$state" ;;
	esac
}

step_prepared() {
	from image
	boot prepare
}

step_installed() {
	from prepared
	boot "install rust-pmem"
	boot "driver rust_pmem"
}

step_upgraded() {
	from installed
	boot upgrade
	boot "driver rust_pmem"
}

step_purged() {
	from upgraded
	boot purge
	boot "driver nd_pmem"
}

# The root file system is moved to an NVDIMM.
step_root() {
	from installed
	boot copy_root --nvdimm size=4G
	for state_of_root in on_pmem repaired removed; do
		boot root_$state_of_root --nvdimm size=4G --append 'root=/dev/pmem1 rootflags=dax=always'
	done
}

# secure_boot VARIABLES: options of pmem-vm for Secure Boot with these UEFI variables.
secure_boot() {
	cp "build/images/system/$1.fd" "$state/variables.fd"
	echo "-machine smm=on -global driver=cfi.pflash01,property=secure,value=on" \
		"-drive if=pflash,format=raw,unit=0,readonly=on,file=build/images/system/firmware.fd" \
		"-drive if=pflash,format=raw,unit=1,file=$state/variables.fd"
}

# The module is signed; its key is enrolled at the last boot only.
step_secure_boot() {
	from installed
	boot sign
	boot secure_boot_refused --qemu "$(secure_boot variables)"
	boot secure_boot --qemu "$(secure_boot variables-dkms)"
}

# The older kernel has a module of neither kind.
step_without_rust() {
	from installed
	boot "kernel without-rust"
	boot "driver rust_pmem"
	release=6.12
	boot no_module
	release=''
	boot "driver rust_pmem"
}

step_full() {
	from prepared
	boot full
	boot no_module
}

# The power fails while DKMS builds. 125: the guest was lost.
step_dkms() {
	from prepared
	expected=125
	boot interrupted
	expected=0
	boot no_module
	boot recovered
	boot "driver rust_pmem"
}

# The packages, and then the kernel: DKMS builds the module for both.
step_updated() {
	from dkms
	boot upgrade
	boot "kernel update"
	boot "driver rust_pmem"
	boot purge
	boot "driver nd_pmem"
}

# shellcheck disable=SC2086 # a list
[ $# -gt 0 ] || set -- $steps
for name; do
	case " $steps " in
	*" $name "*) ;;
	*)
		echo "there is no step \"$name\", only: $steps" >&2
		exit 2
		;;
	esac
done
for name; do
	state=$states/$name.partial
	"step_$name"
	[ "$failed" = 0 ] || break
	rm -rf "${states:?}/$name"
	mv "$state" "$states/$name"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
