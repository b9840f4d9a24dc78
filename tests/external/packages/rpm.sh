#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tests/external/packages/rpm.sh: the RPM packages in build/rpm have the files that "make install" installs, and scripts
# without unknown macros; their pmemctl starts, their module is for the kernel that they name, and the source package
# builds pmemctl again. It needs no VM, but "make rpm", "make pmemctl" and the root that packages are built in:
#
#	ENTER_ROOT=packages setup/enter tests/external/packages/rpm.sh
set -eu

top=$(cd "$(dirname "$0")/../../.." && pwd -P)
cd "$top"
work=$(mktemp -d "$top/build/rpm.XXXXXX")
trap 'rm -rf "$work"' EXIT
status=0
fail() {
	printf 'error: %s\n' "$1"
	status=1
}
packages=build/rpm
pmemctl=$(echo $packages/pmemctl-[0-9]*.x86_64.rpm) module=$(echo $packages/kmod-rust-pmem-*.x86_64.rpm) source=$(echo $packages/*.src.rpm)
for package in "$pmemctl" "$module" "$source"; do
	[ -e "$package" ] || {
		echo "error: there is no $package: run \"make rpm\""
		exit 1
	}
done
# unpack PACKAGE DIR
unpack() { mkdir "$2" && rpm2archive - <"$1" | tar -xz -C "$2"; }

unpack "$pmemctl" "$work/pmemctl"
# The root has no sysfs, without which any disk may be persistent memory.
sed -i 's,/sys/dev/block,/dev,' "$work/pmemctl/usr/share/pmemctl/initramfs.sh"
DESTDIR="$work/installed" setup/install pmemctl
(cd "$work/installed" && find . ! -type d ! -path '*/initramfs-tools/*' | sed 's/\.1$/.1.gz/' | sort) >"$work/expected"
(cd "$work/pmemctl" && find . ! -type d ! -path './usr/share/doc/*' ! -path './usr/share/licenses/*' | sort) |
	diff "$work/expected" - || fail "$pmemctl: other files than expected (<) are there (>)"
"$work/pmemctl/usr/sbin/pmemctl" --version >/dev/null || fail "its pmemctl does not start"
[ -n "$(find "$work/pmemctl/usr/share/doc" -name driver.rst)" ] || fail "its documentation is missing"

unpack "$module" "$work/module"
release=${module#*kmod-rust-pmem-}
release=${release%-[0-9]*-[0-9]*.rpm}
ko=$work/module/usr/lib/modules/$release/updates/rust_pmem.ko
[ "$(modinfo -F vermagic "$ko" | cut -d' ' -f1)" = "$release" ] || fail "$module: its module is not for $release"

for package in "$pmemctl" "$module"; do
	rpm --dbpath "$work/database" --query --package --scripts "$package" >"$work/scripts"
	grep -q scriptlet "$work/scripts" || fail "$package: it has no scripts"
	! grep '%' "$work/scripts" || fail "$package: this macro is unknown"
	[ "$package" != "$pmemctl" ] || grep -q ' pmemctl-save\.service' "$work/scripts" || fail "$package: its scripts name no units"
done

# Images are made again if the root file system is on persistent memory, and only then.
mkdir "$work/bin"
printf '#!/bin/sh\necho /dev/root\n' >"$work/bin/findmnt"
# shellcheck disable=SC2016 # for that script
printf '#!/bin/sh\necho "$root_disk"\n' >"$work/bin/lsblk"
# shellcheck disable=SC2016 # for that script
printf '#!/bin/sh\necho "$*"\n' >"$work/bin/dracut"
chmod 755 "$work/bin"/*
# after_install PACKAGE DISK: runs its last script, with the root file system on this disk.
after_install() {
	rpm --dbpath "$work/database" --query --package --queryformat '%{POSTTRANS}' "$1" |
		sed "s,/usr/share/pmemctl,$work/pmemctl&,g" | root_disk=$2 PATH=$work/bin:$PATH sh
}
[ "$(after_install "$pmemctl" pmem0)" = "--force --regenerate-all" ] || fail "$pmemctl: images are not made again"
[ "$(after_install "$module" pmem0)" = "--force --kver $release" ] || fail "$module: the image is not made again"
for package in "$pmemctl" "$module"; do
	[ -z "$(after_install "$package" vda)" ] || fail "$package: images are made again without need"
done
# The removal lists the drivers for the next image (install.sh).
rpm --dbpath "$work/database" --query --package --queryformat '%{PREUN}' "$pmemctl" | grep -q keep_drivers ||
	fail "$pmemctl: its removal does not list the drivers"
[ -z "$(find "$work/pmemctl" "$work/module" -type f \( -perm /022 -o ! -perm -444 \))" ] || fail "modes of files are wrong"

rpmbuild --quiet --nodeps --define "_topdir $work/again" --rebuild "$source" >"$work/log" 2>&1 || {
	tail -n 20 "$work/log" | sed 's/^/	| /'
	fail "$source cannot be built again"
}
again=$(find "$work/again/RPMS" -name '*.rpm')
[ "$(basename "$again")" = "$(basename "$pmemctl")" ] || fail "without a kernel, other packages are built: $again"
[ $status != 0 ] || echo "The RPM packages are as they should be."
exit $status
